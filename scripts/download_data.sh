#!/usr/bin/env bash
# What `make data` calls: the flowers from Kaggle if there are credentials for it, else from Oxford.
set -euo pipefail

scripts="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
data="$scripts/../data"
kaggle_name=pytorch-challange-flower-dataset

case "${1:-}" in
  "") ;;
  -h | --help)
    echo "usage: download_data.sh: get the flowers from Kaggle if there are credentials, else from Oxford"
    exit 0
    ;;
  *)
    echo "error: takes no argument, got '$1': the scripts for one source take options, see their --help" >&2
    exit 2
    ;;
esac

python="$scripts/../.venv/bin/python"
[[ -x "$python" ]] || python=python3

# Flowers that are there already are enough, whatever the credentials.
if [[ ! -d "$data/oxford-102-flowers/dataset" ]]; then
  if [[ -d "$data/$kaggle_name" ]] || bash "$scripts/download_kaggle_data.sh" --check; then
    exec bash "$scripts/download_kaggle_data.sh" nunenuh "$kaggle_name"
  fi
  echo "no credentials for Kaggle: taking the flowers from Oxford" >&2
fi
exec "$python" "$scripts/download_oxford_data.py"
