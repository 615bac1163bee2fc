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
exec "$tensorboard" --logdir "$folder" "$@"
