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
A call that was stopped is resumed by the same call.

  --data-dir DIR  folder for data sets (default: $root/data)
  --check         say only, by the exit code, whether there are credentials for Kaggle (0) or not (2)
  --help          show this text

The same flowers without an account: $keyless
TEXT
}

fail() {
  echo "error: $1" >&2
  exit 2
}

# The places where kaggle 2.x looks: kaggle_api_extended.py, kaggle_env.py and kaggle_creds.py.
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
  - make a token at https://www.kaggle.com/settings/api and put it into KAGGLE_API_TOKEN or
    ~/.kaggle/access_token (an older key: KAGGLE_USERNAME and KAGGLE_KEY, or ~/.kaggle/kaggle.json);
  - or get the same flowers without an account: $keyless
TEXT
  exit 2
}

# Pass kaggle's progress bar on to a terminal; keep all it says in the log. (Ctrl-C is for kaggle.)
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

# One message for what went wrong, out of the log, instead of kaggle's trace-back.
explain_failure() {
  local last
  last="$(grep -v '^[[:space:]]*$' "$log" | tail -n 1 || true)"
  if grep -qiE '401 Client Error|unauthori[sz]ed|unauthenticated|authentication required' "$log"; then
    fail "Kaggle refuses the credentials (401): make a new token at https://www.kaggle.com/settings/api, or go without an account: $keyless"
  elif grep -qiE '403 Client Error|forbidden|permission .*denied' "$log"; then
    fail "Kaggle denies access to $owner/$name (403): check the name and the token (https://www.kaggle.com/settings/api), or go without an account: $keyless"
  elif grep -qiE '404 Client Error|not found' "$log"; then
    fail "Kaggle knows no data set $owner/$name (404): check both names at https://www.kaggle.com/datasets/$owner/$name"
  fi
  fail "kaggle could not bring $owner/$name: ${last:-it said nothing}; run again to resume, or go without an account: $keyless"
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
  [[ "$word" =~ ^[A-Za-z0-9][A-Za-z0-9._-]*$ ]] || fail "'$word' is no name of Kaggle's: letters, digits, - and _"
done

final="$data/$name"
partial="$data/.$name.partial"
if [[ -n "$(ls -A "$final" 2>/dev/null)" ]]; then
  echo "$final is already there: nothing to do" >&2
  exit 0
fi
have_credentials || explain_credentials
kaggle="$(command -v kaggle || echo "$root/.venv/bin/kaggle")"
[[ -x "$kaggle" ]] || fail "no kaggle command: 'pip install kaggle', or go without it: $keyless"

log="$(mktemp)"
trap 'rm -f "$log"' EXIT
trap 'echo >&2; echo "stopped: the same call resumes where this one was" >&2; exit 130' INT
mkdir -p "$partial" 2>/dev/null || fail "cannot write to $data: pass another --data-dir"
echo "downloading $owner/$name from Kaggle into $final" >&2
"$kaggle" datasets download "$owner/$name" --unzip --path "$partial" 2>&1 | show_progress || explain_failure

# kaggle ends with 0 after Ctrl-C too: it deletes the archive once that is unpacked, and not before.
leftover="$(find "$partial" -maxdepth 1 \( -name '*.zip' -o -name '*.kaggle-partial' \) -print -quit)"
[[ -z "$leftover" ]] || fail "the download of $owner/$name is not complete: run again to resume"
image="$(find "$partial" \( -iname '*.jp*g' -o -iname '*.png' \) -size +0 -print -quit)"
[[ -n "$image" ]] || fail "$owner/$name holds no images: is it the right data set? It lies in $partial"
rmdir "$final" 2>/dev/null || true # an empty folder would swallow the move
mv "$partial" "$final"
echo "$final is complete" >&2
