#!/bin/sh
# Runs a command with the package index, proxies and certificates of whoever builds the image. They come as secret mounts
# (scripts/images.sh makes them), so that neither the image nor its history knows them; without them, the defaults hold.
set -eu
if [ -s /run/secrets/package-index ]; then
    . /run/secrets/package-index
fi
if [ -s /run/secrets/ca-certificates ]; then
    SSL_CERT_FILE=/run/secrets/ca-certificates
    PIP_CERT=$SSL_CERT_FILE
    export SSL_CERT_FILE PIP_CERT
fi
exec "$@"
