# Sourced by the scripts that build images: which of docker and podman does it, and how two builds come out the same.

# docker where its daemon answers: a client alone is no docker.
if [ -n "${CONTAINER_ENGINE:-}" ]; then
    engine=$CONTAINER_ENGINE
elif docker info >/dev/null 2>&1; then
    engine=docker
elif command -v podman >/dev/null; then
    engine=podman
else
    echo "neither docker nor podman can be used here: start docker, or install podman (Debian: apt-get install podman)" >&2
    exit 2
fi

# build_image NAME CONTAINERFILE CONTEXT [OPTION...]: all files and the image itself carry the time SOURCE_DATE_EPOCH.
build_image() {
    build_name=$1 build_file=$2 build_context=$3
    shift 3
    case $engine in
    *podman)
        # layers: what has not changed is not built again. --timestamp alone would switch that off.
        "$engine" build --quiet --layers --timestamp "$SOURCE_DATE_EPOCH" --network host \
            --tag "$build_name" --file "$build_file" "$@" "$build_context" >/dev/null
        ;;
    *)
        # The exporter is told by name: only so does BuildKit rewrite the files' times.
        SOURCE_DATE_EPOCH=$SOURCE_DATE_EPOCH "$engine" buildx build --quiet --provenance=false --network host \
            --output "type=docker,rewrite-timestamp=true" \
            --tag "$build_name" --file "$build_file" "$@" "$build_context" >/dev/null
        ;;
    esac
}
