#!/usr/bin/env bash
# Show the losses and sample grids of all runs under models/ in a browser.
set -euo pipefail
root="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
if [ "${1:-}" = "--help" ] || [ "${1:-}" = "-h" ]; then
    echo "usage: bash scripts/tensorboard.sh [FOLDER] [TENSORBOARD OPTIONS]"
    echo "Shows the losses and sample grids of the runs under FOLDER (default: models/) at"
    echo "http://localhost:6006 ; --port N for another port."
    exit 0
fi
folder="${MODELS_DIR:-$root/models}"
case "${1:-}" in "" | -*) ;; *) folder="$1"; shift ;; esac
if [ ! -d "$folder" ]; then
    echo "error: no folder $folder: train a model first (scripts/train.py)" >&2
    exit 2
fi
tensorboard="${VENV:-$root/.venv}/bin/tensorboard"
[ -x "$tensorboard" ] || tensorboard="$(command -v tensorboard)" || {
    echo "error: tensorboard is not installed: run 'make help' for how to begin" >&2
    exit 2
}
# Drop TensorFlow's start-up lines, which no setting silences; errors and the address pass.
chatter='^$|^WARNING: All log messages before absl|^[IWE]0000 |^NOTE: Using experimental fast data|"--load_fast=false"|tensorboard/issues/4784'
export TF_CPP_MIN_LOG_LEVEL="${TF_CPP_MIN_LOG_LEVEL:-3}"
exec "$tensorboard" --logdir "$folder" "$@" 2> >(grep --line-buffered -vE "$chatter" >&2)
