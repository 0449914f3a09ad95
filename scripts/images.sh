#!/bin/sh
# Builds the images perseid-operator and perseid-stage, with docker or podman:
#
#     scripts/images.sh [operator] [stage]
#
# REGISTRY (prefix of the names, default localhost), TAG (default: the version), BASE (an image with Python 3.11 or 3.12,
# default: Docker Hub's; scripts/base_image.sh makes one without a registry), VARIANT (cpu or cuda, of the stage image).
# The package index, its certificates and proxies are those of pip and uv here, and are not in the images.
set -eu
cd "$(dirname "$0")/.."
. scripts/container_engine.sh

version=$(sed -n 's/^version = "\(.*\)"/\1/p' pyproject.toml)
registry=${REGISTRY:-localhost}
tag=${TAG:-$version}
variant=${VARIANT:-cpu}
# The time of the last commit: the same tree gives the same image.
SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct 2>/dev/null || echo 0)}
revision=$(git rev-parse HEAD 2>/dev/null || echo unknown)
# Whoever looks up that revision must know that the image has more in it.
[ -z "$(git status --porcelain 2>/dev/null)" ] || revision=$revision-dirty

secrets=$(mktemp -d)
trap 'rm -rf "$secrets"' EXIT
# As assignments for a shell. Paths (find-links, configuration files) mean nothing in there.
for name in PIP_INDEX_URL PIP_EXTRA_INDEX_URL PIP_TRUSTED_HOST PIP_DEFAULT_TIMEOUT UV_INDEX_URL UV_DEFAULT_INDEX UV_INDEX \
    UV_EXTRA_INDEX_URL UV_INSECURE_HOST UV_HTTP_TIMEOUT HTTP_PROXY HTTPS_PROXY NO_PROXY http_proxy https_proxy no_proxy; do
    eval "value=\${$name:-}"
    if [ -z "$value" ] && [ "$name" = PIP_INDEX_URL ]; then
        value=$(python3 -m pip config get global.index-url 2>/dev/null || true)
    fi
    if [ -n "$value" ]; then
        # Between single quotes a shell takes all but a single quote as it stands.
        printf "export %s='%s'\n" "$name" "$(printf '%s' "$value" | sed "s/'/'\\\\''/g")"
    fi
done >"$secrets/package-index"
# uv reads its own; where only pip has been told of an index, it is uv's too.
if ! grep -q '^export UV_\(DEFAULT_INDEX\|INDEX_URL\)=' "$secrets/package-index"; then
    sed -n "s/^export PIP_INDEX_URL=/export UV_DEFAULT_INDEX=/p" "$secrets/package-index" >"$secrets/more"
    cat "$secrets/more" >>"$secrets/package-index"
fi
: >"$secrets/ca-certificates"
for file in "${SSL_CERT_FILE:-}" "${PIP_CERT:-}"; do
    if [ -n "$file" ] && [ -f "$file" ]; then
        cat "$file" >"$secrets/ca-certificates"
        break
    fi
done

build() {
    build_name=$registry/perseid-$1:$tag
    build_recipe=images/$1.Containerfile
    shift
    build_image "$build_name" "$build_recipe" . \
        --secret "id=package-index,src=$secrets/package-index" --secret "id=ca-certificates,src=$secrets/ca-certificates" \
        --build-arg "VERSION=$version" --build-arg "REVISION=$revision" ${BASE:+--build-arg "BASE=$BASE"} "$@"
    echo "$build_name"
}

[ $# -gt 0 ] || set -- operator stage
for image in "$@"; do
    case $image in
    operator) build operator ;;
    stage)
        # podman can mount uv's own cache, where the wheels of `make setup` lie; docker has a cache of its own.
        cache=${UV_CACHE_DIR:-${XDG_CACHE_HOME:-$HOME/.cache}/uv}
        case $engine in
        *podman)
            mkdir -p "$cache"
            build stage --build-arg "VARIANT=$variant" --volume "$cache:/mnt/uv-cache"
            ;;
        *) build stage --build-arg "VARIANT=$variant" ;;
        esac
        ;;
    *)
        echo "there is no image $image; there are operator and stage" >&2
        exit 2
        ;;
    esac
done
