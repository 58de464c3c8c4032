#!/usr/bin/env bash
# From nothing to a small language model trained on real text: makes .venv, installs, and runs
# configs/quickstart.yaml. What is finished already is not done again.
#
#   launch/quickstart.sh                                      results go to runs/quickstart
#   launch/quickstart.sh train.steps=2000 workdir=runs/long   any KEY=VALUE of the config
#
# Relative paths are taken from the project's folder, wherever this is called from.
set -euo pipefail
source "$(dirname -- "${BASH_SOURCE[0]}")/environment.sh"

make_environment quickstart
exec .venv/bin/python -m jaxlm run configs/quickstart.yaml "$@"
