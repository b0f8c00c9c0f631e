#!/usr/bin/env bash
# densevit beside a server with grpcio and one with LitServe, the same model in all: a table, and its numbers in target/compare/.
#
#   benches/compare/run.sh                            # three rounds of 15 s a workload and server: 17 minutes
#   benches/compare/run.sh --rounds 1 --seconds 5     # a look
#
# Packages go into target/compare/.venv, pinned by version and checksum. PYTHON names another Python, of 3.11 to 3.14.
set -euo pipefail
cd "$(dirname "$0")/../.."

pins=benches/compare/requirements.txt
model=models/dinov2-vits14-imgfocus/1
out=target/compare
venv=$out/.venv
bin=${DENSEVIT_BIN:-target/release/densevit}

fail() {
  echo "compare: $1" >&2
  exit 1
}

[[ -x $bin && -e $model/model.toml ]] || fail "there is no $bin or no $model: run make setup"
mkdir -p "$out"
if [[ ! -x $venv/bin/python ]] || ! cmp -s "$pins" "$venv/pins.txt"; then
  python=${PYTHON:-python3}
  "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || fail "$python is older than 3.11: name another in PYTHON"
  "$python" -c 'import venv, ensurepip' 2>/dev/null || fail "Python has no venv (Debian: apt-get install python3-venv)"
  echo "compare: setting up $venv (grpcio, litserve, onnxruntime; 0.4 GB)"
  rm -rf "$venv"
  "$python" -m venv "$venv"
  "$venv/bin/python" -m pip install --quiet --disable-pip-version-check --require-hashes --only-binary=:all: -r "$pins"
  cp "$pins" "$venv/pins.txt"
fi
if [[ ! -e $out/model/lift.onnx || $model/model.toml -nt $out/model/lift.onnx ]]; then
  echo "compare: cutting the graphs to the outputs that are served"
  "$venv/bin/python" benches/compare/cut.py "$model" "$out/model"
fi
exec "$venv/bin/python" benches/compare/compare.py --binary "$bin" "$@"
