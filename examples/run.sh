#!/usr/bin/env bash
# Runs one example: examples/run.sh NAME [MODEL ...]. Uses the environment that `make` made, if there is one.
# Works with macOS's bash 3.2.
set -eu

examples=$(cd "$(dirname "$0")" && pwd)
root=$(dirname "$examples")

list() {
    echo "Usage: examples/run.sh NAME [MODEL ...]"
    echo "NAME is one of:"
    for file in "$examples"/*.py; do
        # The first line of each file says what it shows.
        printf '  %-18s %s\n' "$(basename "$file" .py)" "$(sed -n '1s/^"""//;1s/"""$//;1p' "$file")"
    done
}

case "${1:-}" in
    "") list >&2; exit 2 ;;
    -h|--help) list; exit 0 ;;
esac

name=$(basename "$1" .py)
shift
if [ ! -f "$examples/$name.py" ]; then
    echo "There is no example named $name." >&2
    list >&2
    exit 2
fi

if [ -x "$root/.venv/bin/python" ]; then
    python="$root/.venv/bin/python"
elif [ -x "$root/.venv/Scripts/python.exe" ]; then
    python="$root/.venv/Scripts/python.exe"
else
    python=python3
fi
exec "$python" "$examples/$name.py" "$@"
