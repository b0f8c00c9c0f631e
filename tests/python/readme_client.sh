#!/usr/bin/env bash
# Runs the Python client of README, as it stands there, against a server with the default model.
set -euo pipefail
cd "$(dirname "$0")/../.."

tests/python/venv.sh
scratch=$(mktemp -d)
server=
stop() {
  [[ -z $server ]] || { kill -TERM "$server" 2>/dev/null || true; wait "$server" 2>/dev/null || true; }
  rm -rf "$scratch"
}
trap stop EXIT

# The block of README that begins with ```python.
awk '/^```python$/ { inside = 1; next } /^```$/ { inside = 0 } inside' README.md >"$scratch/client.py"
[[ -s $scratch/client.py ]] || { echo "test: README.md holds no \`\`\`python block" >&2; exit 1; }

target/release/densevit serve --listen 127.0.0.1:0 --no-admin >"$scratch/out" 2>"$scratch/log" &
server=$!
address=
for _ in $(seq 300); do
  address=$(sed -n 's/^listening on //p' "$scratch/out")
  [[ -n $address ]] && break
  kill -0 "$server" 2>/dev/null || { cat "$scratch/log" >&2; exit 1; }
  sleep 0.1
done
[[ -n $address ]] || { echo "test: the server was not ready within 30 s" >&2; exit 1; }

sed -i "s/localhost:50051/$address/" "$scratch/client.py"
grep -q "$address" "$scratch/client.py" || { echo "test: the client of README does not ask localhost:50051" >&2; exit 1; }
output=$(.venv/bin/python "$scratch/client.py")
echo "$output"
# A map of 32 x 48 cells and 384 channels, of the default photo at a shorter side of 448 px.
grep -q "(32, 48, 384)" <<<"$output" || { echo "test: the client of README did not print the shape of the map" >&2; exit 1; }
