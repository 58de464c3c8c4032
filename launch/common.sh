# shellcheck shell=bash
# Sourced by local.sh, slurm.sh, tpu_pod.sh and gke.sh. Goes to the project's folder and defines
#
#   say, refuse         a line on stderr; the same and exit 2
#   usage SCRIPT        prints the comment that SCRIPT begins with
#   number, word        "NAME VALUE": refuse a VALUE that is no number above 0, or none at all
#   quoted WORD...      the words as a line that bash reads as these words
#   find_python         sets $python, which has jaxlm
#   folder_of CONFIG... prints the workdir; fails with jaxlm's own words for a bad config
#   free_port           prints a port that is free on this host, and so is the next

cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.." || exit 1

say() { printf '%s\n' "$*" >&2; }

refuse() {
    say "${0##*/}: $*"
    exit 2
}

usage() { sed -n '2,/^[^#]/s/^# \{0,1\}//p' "$1"; }

number() { [[ $2 =~ ^[1-9][0-9]*$ ]] || refuse "$1: '$2' is no number above 0"; }

word() { [[ -n $2 ]] || refuse "$1: give a value"; }

quoted() {
    local line
    printf -v line '%q ' "$@"
    printf '%s\n' "${line% }"
}

find_python() {
    python=${PYTHON:-.venv/bin/python}
    command -v "$python" >/dev/null ||
        refuse "$python: not here; install with launch/quickstart.sh, or set PYTHON"
}

folder_of() { JAX_PLATFORMS=cpu "$python" -m jaxlm config --get-workdir "$@"; }

free_port() {
    "$python" -c '
import socket
while True:
    with socket.socket() as first, socket.socket() as second:
        first.bind(("127.0.0.1", 0))
        port = first.getsockname()[1]
        try:
            second.bind(("127.0.0.1", port + 1))
        except (OSError, OverflowError):
            continue
        print(port)
        break
'
}
