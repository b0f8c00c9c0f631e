#!/usr/bin/env bash
# Puts grpcio, numpy and tritonclient into .venv, pinned by version and checksum; does nothing when they are there.
set -euo pipefail
cd "$(dirname "$0")/../.."

pins=tests/python/requirements.txt
if [[ -x .venv/bin/python ]] && cmp -s "$pins" .venv/pins.txt; then
  exit 0
fi
python=${PYTHON:-python3}
"$python" -c 'import venv, ensurepip' 2>/dev/null || { echo "test: Python has no venv (Debian: apt-get install python3-venv)" >&2; exit 1; }
echo "test: setting up .venv (grpcio, numpy, tritonclient)"
rm -rf .venv
"$python" -m venv .venv
.venv/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes --only-binary=:all: -r "$pins"
cp "$pins" .venv/pins.txt
