#!/usr/bin/env bash
# Fetches what checks the manifests, dashboards and alerts: kubectl and schemas into third_party/, Python packages into .venv. Does nothing when
# they are there.
set -euo pipefail
cd "$(dirname "$0")/../.."

"${PYTHON:-python3}" deploy/setup/fetch.py --manifests
pins=deploy/setup/pins/checkers.txt
tests/python/venv.sh
if ! cmp -s "$pins" .venv/checkers.txt; then
  .venv/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --require-hashes --only-binary=:all: -r "$pins"
  cp "$pins" .venv/checkers.txt
fi
