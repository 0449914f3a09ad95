#!/bin/sh
# Makes a base image for images/*.Containerfile out of Debian packages, for places that reach no container registry:
#
#     scripts/base_image.sh [NAME]    # default: localhost/perseid-base:bookworm
#     make images BASE=localhost/perseid-base:bookworm
#
# Needs mmdebstrap and podman or docker. SOURCE_DATE_EPOCH is the time of all files; the same packages give the same image.
set -eu
cd "$(dirname "$0")"
. ./container_engine.sh

name=${1:-localhost/perseid-base:bookworm}
if ! command -v mmdebstrap >/dev/null; then
    echo "mmdebstrap is missing: on Debian or Ubuntu, apt-get install mmdebstrap" >&2
    exit 2
fi

SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-0}
export SOURCE_DATE_EPOCH
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
# Without manuals and translations, as in the slim images of registries. perl-base and apt are in Debian's minimal set.
# The hook merges /usr, or the package usrmerge would, which brings the 50 MB of all of Perl.
mmdebstrap --quiet --variant=minbase --hook-dir=/usr/share/mmdebstrap/hooks/merged-usr \
    --include=usr-is-merged,python3,python3-venv,ca-certificates \
    --dpkgopt='path-exclude=/usr/share/doc/*' --dpkgopt='path-exclude=/usr/share/man/*' \
    --dpkgopt='path-exclude=/usr/share/locale/*' --dpkgopt='path-exclude=/usr/share/info/*' \
    --customize-hook='rm -rf "$1"/var/lib/apt/lists/* "$1"/var/cache/* "$1"/var/log/* "$1"/usr/lib/python3*/test "$1"/usr/share/zoneinfo/right' \
    --customize-hook='find "$1"/usr -name __pycache__ -prune -exec rm -rf {} +' \
    --customize-hook='ln -s python3 "$1"/usr/bin/python' \
    bookworm "$scratch/root.tar"
printf 'FROM scratch\nADD root.tar /\nENV PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin\n' \
    >"$scratch/Containerfile"
build_image "$name" "$scratch/Containerfile" "$scratch"
echo "$name"
