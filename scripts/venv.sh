#!/usr/bin/env bash
# Make .venv with kq in it (editable). With the argument "dev" also what the tests and checks need; in CI all of it.
# Uses uv when it is there, else python3 -m venv; as root on Debian it installs python3-venv when that is missing.
set -euo pipefail
cd "$(dirname "$0")/.."

# The first Python that is new enough; PYTHON names another.
for python in "${PYTHON:-python3}" python3.14 python3.13 python3.12 python3.11; do
  if "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
    break
  fi
  python=
done
if [ -z "$python" ]; then
  echo "venv: kq needs Python 3.11 or newer; here is $(python3 --version 2>&1)" >&2
  exit 1
fi

made() { [ -x .venv/bin/python ] && .venv/bin/python -c 'import sys' 2>/dev/null; }

new_venv() {
  if command -v uv >/dev/null; then
    uv venv --quiet --seed --python "$python" .venv
    return
  fi
  if ! "$python" -c 'import ensurepip, venv' 2>/dev/null; then
    if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
      echo "venv: python3-venv is missing, installing it" >&2
      apt-get update -qq && apt-get install -y -qq --no-install-recommends python3-venv >/dev/null
    else
      echo "venv: python3 has no venv module; install it (Debian: apt install python3-venv) or uv" >&2
      exit 1
    fi
  fi
  "$python" -m venv .venv
}

export PIP_DISABLE_PIP_VERSION_CHECK=1 # that there is a newer pip is no news to who wants kq
made || { rm -rf .venv; new_venv; }
if [ "${1:-}" = dev ]; then
  .venv/bin/python -m pip install --quiet --upgrade 'pip>=25.1' # the first that reads dependency groups
  .venv/bin/python -m pip install --quiet --editable '.[conformance]' --group dev ${CI:+--group deploy}
else
  .venv/bin/python -m pip install --quiet --editable .
fi
