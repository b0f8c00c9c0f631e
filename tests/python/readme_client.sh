#!/usr/bin/env bash
# Runs the Python clients of README, as they stand there, against a server with the default model.
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

# The blocks of README that begin with ```python: client1.py is our own protocol's, client2.py that of KServe.
awk -v to="$scratch/client" '/^```python$/ { inside = ++n; next } /^```$/ { inside = 0 } inside { print >(to n ".py") }' README.md

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

# Runs the client of a number, and looks for what it must print.
run_client() {
  local client=$scratch/client$1.py output
  [[ -s $client ]] || { echo "test: README.md holds no \`\`\`python block number $1" >&2; exit 1; }
  sed -i "s/localhost:50051/$address/" "$client"
  grep -q "$address" "$client" || { echo "test: client $1 of README does not ask localhost:50051" >&2; exit 1; }
  output=$(.venv/bin/python "$client")
  echo "$output"
  grep -qF "$2" <<<"$output" || { echo "test: client $1 of README did not print $2" >&2; exit 1; }
}
# A map of 32 x 48 cells and 384 channels, of the default photo at a shorter side of 448 px.
run_client 1 "(32, 48, 384)"
# The same grid after one LiFT pass in half precision, and labels at the photo's size.
run_client 2 "(1, 64, 96, 384) float16 (1, 300, 451) 1"
