#!/usr/bin/env bash
# `make data`: download the flowers from Kaggle if there are credentials, else from Oxford.
set -euo pipefail

scripts="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
data="$scripts/../data"
kaggle_name=pytorch-challange-flower-dataset

case "${1:-}" in
  "") ;;
  -h | --help)
    printf '%s\n' "usage: download_data.sh" "" "Download the flowers from Kaggle if there are credentials, else from Oxford."
    exit 0
    ;;
  *)
    echo "error: takes no arguments, got '$1': download_kaggle_data.sh and download_oxford_data.py do" >&2
    exit 2
    ;;
esac

python="$scripts/../.venv/bin/python"
[[ -x "$python" ]] || python=python3

# Whatever the credentials, flowers that are already there will do.
if [[ ! -d "$data/oxford-102-flowers/dataset" ]]; then
  if [[ -d "$data/$kaggle_name" ]] || bash "$scripts/download_kaggle_data.sh" --check; then
    exec bash "$scripts/download_kaggle_data.sh" nunenuh "$kaggle_name"
  fi
  echo "no credentials for Kaggle: downloading the flowers from Oxford" >&2
fi
exec "$python" "$scripts/download_oxford_data.py"
