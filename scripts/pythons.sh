#!/usr/bin/env bash
# The tests that need no server, under each Python on the PATH that kq supports: what one of them deprecates is an error.
set -euo pipefail
cd "$(dirname "$0")/.."

for version in 3.11 3.12 3.13 3.14; do
  python=$(command -v "python$version") || { echo "python$version is not here"; continue; }
  home=".venv/pythons/$version"
  [ -x "$home/bin/python" ] || "$python" -m venv "$home"
  "$home/bin/python" -m pip install --quiet --upgrade 'pip>=25.1'
  "$home/bin/python" -m pip install --quiet --editable '.[conformance]' --group dev
  echo "python$version"
  "$home/bin/python" -m pytest -q -p no:cacheprovider tests/unit tests/state tests/worker tests/transports/test_sqlite.py \
    tests/transports/test_sqlite_files.py tests/transports/test_memory.py "$@"
done
