# shellcheck shell=bash
# Sourced by the scripts beside it. Goes to the project's folder and defines
#
#   make_environment EXTRA...    makes .venv with a Python >= 3.12 and installs jaxlm with these
#                                extras of pyproject.toml, at the versions in constraints.txt
#
# A second call installs nothing, an interrupted one is taken up where it was, and two at a time
# wait for each other. Works with bash 3.2, which macOS has.

cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.." || exit 1

say() { printf '%s\n' "$*" >&2; }

# Runs in any Python (also 2.7): "ok VERSION EXECUTABLE" or why it will not do. The executable is
# the one underneath a shim or a virtual environment, so that .venv does not hang on either.
probe='
import sys
version = "%d.%d.%d" % sys.version_info[:3]
if sys.version_info < (3, 12):
    print("is %s" % version)
else:
    import sysconfig
    try:
        import ensurepip, venv
    except ImportError:
        print("is %s without venv (on Debian and Ubuntu: apt install python%d.%d-venv)"
              % ((version,) + sys.version_info[:2]))
    else:
        if sys.implementation.name != "cpython" or sysconfig.get_config_var("Py_GIL_DISABLED"):
            print("is %s, but %s and not the usual CPython" % (version, sys.version))
        else:
            print("ok %s %s" % (version, sys._base_executable))
'

# try_python COMMAND PLACE: sets $python, $version and $chosen when COMMAND runs and will do,
# otherwise adds a line to $rejected and fails.
try_python() {
    local answer
    answer=$("$1" -E -s -c "$probe" 2>/dev/null </dev/null) || answer="does not run"
    if [[ $answer != "ok "* ]]; then
        rejected+="  $1 ($2) $answer"$'\n'
        return 1
    fi
    answer=${answer#ok }
    version=${answer%% *}
    python=${answer#* }
    chosen="$1 ($2)"
}

# Tries the places in the order that the README names; in each, the tested version comes first.
find_python() {
    local name prefix request candidate
    rejected=""
    for prefix in "${VIRTUAL_ENV:-}" "${CONDA_PREFIX:-}"; do
        if [[ -n $prefix ]]; then
            try_python "$prefix/bin/python" "the active environment" && return
        fi
    done
    if command -v uv >/dev/null; then
        for request in 3.12 ">=3.12"; do
            candidate=$(uv python find --system --no-python-downloads "$request" 2>/dev/null) || continue
            try_python "$candidate" "found by uv" && return
        done
    fi
    for name in python3.12 python3.13 python3.14 python3 python; do
        while read -r candidate; do
            try_python "$candidate" "on the PATH" && return
        done < <(type -aP "$name")
    done
    for name in 3.12 3.13 3.14; do
        for candidate in "${PYENV_ROOT:-${HOME:-}/.pyenv}/versions/$name"*/bin/python3; do
            if [[ -x $candidate ]]; then
                try_python "$candidate" "pyenv's" && return
            fi
        done
    done
    if command -v uv >/dev/null; then
        say "No Python >= 3.12 found; asking uv to download one."
        if uv python install 3.12 >&2 && candidate=$(uv python find --system 3.12); then
            try_python "$candidate" "downloaded by uv" && return
        fi
    fi
    return 1
}

say_what_to_install() {
    say "No Python >= 3.12 was found."
    if [[ -n $rejected ]]; then
        say "What is here will not do:"
        say "${rejected%$'\n'}"
    fi
    say "Install one of these, then run this script again:"
    say "  any system       uv (see docs.astral.sh/uv), then: uv python install 3.12"
    say "  Debian, Ubuntu   sudo apt install python3.12 python3.12-venv   (or a later 3.x)"
    say "  Fedora           sudo dnf install python3.12"
    say "  macOS            brew install python@3.12"
    say "  pyenv            pyenv install 3.12"
}

make_environment() (
    set -euo pipefail
    if command -v flock >/dev/null; then
        exec 9<pyproject.toml
        flock --nonblock 9 || { say "Another script is installing; waiting for it."; flock 9; }
    fi

    # One stamp an extra, holding the state of all that an installation depends on. It is inside
    # .venv, so it goes when .venv goes, and is written last.
    local state extra missing=""
    state=$(pwd; cat pyproject.toml constraints.txt | cksum)
    for extra in "$@"; do
        if [[ $(cat ".venv/.installed-$extra" 2>/dev/null) != "$state" ]]; then
            missing+=${missing:+,}$extra
        fi
    done

    local version python chosen rejected="" clear=()
    if ! try_python .venv/bin/python "made before"; then
        if [[ -e .venv ]]; then
            say "Making .venv again: ${rejected#  .venv/bin/python (made before) }"
            clear=(--clear)
        fi
        find_python || { say_what_to_install; return 1; }
        missing=$(IFS=,; printf '%s' "$*")
    fi
    say "Python $version: $chosen"
    if [[ -z $missing ]]; then
        return
    fi

    say "Installing jaxlm[$missing] into $PWD/.venv"
    # On a .venv that is there, this mends what an interruption or a move left wrong.
    "$python" -m venv ${clear[@]+"${clear[@]}"} .venv
    .venv/bin/python -m pip install --disable-pip-version-check --no-input \
        --constraint constraints.txt --editable ".[$missing]"
    for extra in ${missing//,/ }; do
        printf '%s\n' "$state" >".venv/.installed-$extra"
    done
)
