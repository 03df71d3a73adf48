#!/usr/bin/env bash
# Fetches models into models/, as plain files under their own names. What is there already is checked and
# kept, so running it twice is fine. ggrank's own downloader does the work, with its checksums; HF_TOKEN,
# HF_ENDPOINT and HF_HUB_OFFLINE mean what they always mean.
#
# Written for bash 3.2, which is what macOS has; in fact for any POSIX shell, so that it stays that way:
# the tests run it with dash too, where they find it.

set -eu

ROOT="$(cd "$(dirname "$0")/.." && pwd)"
ALL="bge nomic multilingual bge-reranker bge-reranker-v2-m3"

usage() {
  cat <<END
usage: scripts/download_models.sh [bge|nomic|multilingual|bge-reranker|bge-reranker-v2-m3|all|--list] [--dry-run] [--dir DIR]

  --list      the names, and which models they stand for
  --dry-run   say what would be fetched, from where and how much; fetch nothing
  --dir DIR   another directory than $ROOT/models

PYTHON chooses the Python that has ggrank; else .venv/bin/python where there is one, else python3.
END
}

preset_of() {
  case "$1" in
    bge) echo bge-small-en-v1.5 ;;
    bge-reranker) echo bge-reranker-base ;;
    bge-reranker-v2-m3) echo bge-reranker-v2-m3 ;;
    multilingual) echo multilingual-e5-small ;;
    nomic) echo nomic-embed-text-v1.5 ;;
    *) return 1 ;;
  esac
}

list() {
  for name in $ALL; do
    printf '%-20s %s\n' "$name" "$(preset_of "$name")"
  done
}

wrong_usage() {
  echo "download_models.sh: $1" >&2
  usage >&2
  exit 2
}

find_python() {
  if [ -n "${PYTHON:-}" ]; then
    echo "$PYTHON"
  elif [ -x "$ROOT/.venv/bin/python" ]; then
    echo "$ROOT/.venv/bin/python"
  else
    echo python3
  fi
}

names=""
dry_run=""
directory="$ROOT/models"
while [ $# -gt 0 ]; do
  case "$1" in
    --list) list; exit 0 ;;
    -h | --help) usage; exit 0 ;;
    --dry-run) dry_run=--dry-run ;;
    --dir)
      [ $# -ge 2 ] || wrong_usage "--dir needs a directory"
      directory="$2"
      shift
      ;;
    all) names="$names $ALL" ;;
    *)
      preset_of "$1" >/dev/null || wrong_usage "no model is called '$1'"
      names="$names $1"
      ;;
  esac
  shift
done
[ -n "$names" ] || wrong_usage "say which models to fetch"

python="$(find_python)"
if ! "$python" -c 'import ggrank' 2>/dev/null; then
  echo "download_models.sh: $python has no ggrank: run 'make demo' once, or set PYTHON to one that has it" >&2
  exit 1
fi

failed=""
for name in $names; do
  # ${dry_run:+...} is no argument at all when empty; "$dry_run" would be an empty one.
  "$python" -m ggrank models download "$(preset_of "$name")" --dir "$directory" ${dry_run:+"$dry_run"} ||
    failed="$failed $name"
done
if [ -n "$failed" ]; then
  echo "download_models.sh: could not fetch$failed" >&2
  exit 1
fi
