#!/usr/bin/env bash
# Download a data set from Kaggle and unpack it into data/<name>/. The book's own call:
#   bash scripts/download_kaggle_data.sh nunenuh pytorch-challange-flower-dataset
set -euo pipefail

root="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
keyless="python scripts/download_oxford_data.py"

usage() {
  cat <<TEXT
usage: download_kaggle_data.sh [--data-dir DIR] OWNER NAME
       download_kaggle_data.sh --check

Download the Kaggle data set OWNER/NAME and unpack it into DIR/NAME.
To resume an interrupted download, run the same command again.

  --data-dir DIR  folder for data sets (default: $root/data)
  --check         only exit with 0 if there are credentials for Kaggle, else with 2
  --help          show this text

The same flowers without an account: $keyless
TEXT
}

fail() {
  echo "error: $1" >&2
  exit 2
}

# Where kaggle 2.x looks: kaggle_api_extended.py, kaggle_env.py and kaggle_creds.py.
have_credentials() {
  local file home="${HOME:-/}" config
  config="${KAGGLE_CONFIG_DIR:-$home/.kaggle}"
  if [[ -z "${KAGGLE_CONFIG_DIR:-}" && ! -d "$config" ]]; then
    config="${XDG_CONFIG_HOME:-$home/.config}/kaggle"
  fi
  [[ -n "${KAGGLE_API_TOKEN:-}" || (-n "${KAGGLE_USERNAME:-}" && -n "${KAGGLE_KEY:-}") ]] && return
  for file in "$config/kaggle.json" "$home/.kaggle/"{access_token,access_token.txt,credentials.json}; do
    [[ -s "$file" ]] && return
  done
  return 1
}

explain_credentials() {
  cat >&2 <<TEXT
error: no credentials for Kaggle. Either
  - create a token at https://www.kaggle.com/settings/api and put it into KAGGLE_API_TOKEN or
    ~/.kaggle/access_token (older keys: KAGGLE_USERNAME and KAGGLE_KEY, or ~/.kaggle/kaggle.json);
  - or get the same flowers without an account: $keyless
TEXT
  exit 2
}

# Show kaggle's progress bar on a terminal; keep all of its output in the log. (kaggle gets Ctrl-C.)
show_progress() {
  trap '' INT
  local piece
  while IFS= read -r -d $'\r' piece || [[ -n "$piece" ]]; do
    printf '%s\n' "$piece" >>"$log"
    if [[ -t 2 && "$piece" == *'%|'* ]]; then
      printf '\r%s' "${piece%%$'\n'*}" >&2
    fi
  done
}

# Say in one line what went wrong, from the log, instead of kaggle's trace-back.
explain_failure() {
  local last
  last="$(grep -v '^[[:space:]]*$' "$log" | tail -n 1 || true)"
  if grep -qiE '401 Client Error|unauthori[sz]ed|unauthenticated|authentication required' "$log"; then
    fail "Kaggle refuses the credentials (401): create a new token at https://www.kaggle.com/settings/api, or use no account: $keyless"
  elif grep -qiE '403 Client Error|forbidden|permission .*denied' "$log"; then
    fail "Kaggle denies access to $owner/$name (403): check the name and the token (https://www.kaggle.com/settings/api), or use no account: $keyless"
  elif grep -qiE '404 Client Error|not found' "$log"; then
    fail "Kaggle has no data set $owner/$name (404): check both names at https://www.kaggle.com/datasets/$owner/$name"
  fi
  fail "kaggle could not download $owner/$name: ${last:-it printed nothing}; run again to resume, or use no account: $keyless"
}

data="$root/data"
words=()
while (($#)); do
  case "$1" in
    -h | --help) usage && exit 0 ;;
    --check) have_credentials && exit 0 || exit 2 ;;
    --data-dir)
      [[ -n "${2:-}" ]] || fail "--data-dir needs a folder"
      data="$2" && shift
      ;;
    -*) fail "no option $1: see --help" ;;
    *) words+=("$1") ;;
  esac
  shift
done
((${#words[@]} == 2)) || fail "needs OWNER and NAME, got ${#words[@]} words: see --help"
owner="${words[0]}" name="${words[1]}"
for word in "$owner" "$name"; do
  [[ "$word" =~ ^[A-Za-z0-9][A-Za-z0-9._-]*$ ]] || fail "'$word' is not a Kaggle name: use letters, digits, - and _"
done

final="$data/$name"
partial="$data/.$name.partial"
if [[ -n "$(ls -A "$final" 2>/dev/null)" ]]; then
  echo "$final already exists: nothing to do" >&2
  exit 0
fi
have_credentials || explain_credentials
kaggle="$(command -v kaggle || echo "$root/.venv/bin/kaggle")"
[[ -x "$kaggle" ]] || fail "no kaggle command: 'pip install kaggle', or do without it: $keyless"

log="$(mktemp)"
trap 'rm -f "$log"' EXIT
trap 'echo >&2; echo "interrupted: run the same command again to resume" >&2; exit 130' INT
mkdir -p "$partial" 2>/dev/null || fail "cannot write to $data: pass another --data-dir"
echo "downloading $owner/$name from Kaggle into $final" >&2
"$kaggle" datasets download "$owner/$name" --unzip --path "$partial" 2>&1 | show_progress || explain_failure

# kaggle exits with 0 even after Ctrl-C, but deletes the archive only once it is unpacked.
leftover="$(find "$partial" -maxdepth 1 \( -name '*.zip' -o -name '*.kaggle-partial' \) -print -quit)"
[[ -z "$leftover" ]] || fail "the download of $owner/$name is incomplete: run again to resume"
image="$(find "$partial" \( -iname '*.jp*g' -o -iname '*.png' \) -size +0 -print -quit)"
[[ -n "$image" ]] || fail "$owner/$name holds no pictures: is it the right data set? It is in $partial"
rmdir "$final" 2>/dev/null || true # an empty folder would swallow the move
mv "$partial" "$final"
echo "$final is complete" >&2
