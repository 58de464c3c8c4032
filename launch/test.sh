#!/usr/bin/env bash
# Makes .venv, installs with the test extra, and runs the tests.
#
#   launch/test.sh                        all but the slow ones
#   launch/test.sh -m slow                the slow ones
#   launch/test.sh tests/corpus -k dedup  arguments go to pytest
#
# Relative paths are taken from the project's folder, wherever this is called from.
set -euo pipefail
source "$(dirname -- "${BASH_SOURCE[0]}")/environment.sh"

make_environment test
exec .venv/bin/python -m pytest "$@"
