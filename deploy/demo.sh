#!/usr/bin/env bash
# Serves the models of `make setup` on a free port, extracts a photo, finds its object and segments a street through gRPC, leaves
# demo/out.png, demo/object.png, demo/masks.png and demo/features.npy; of the small model with registers, demo/registers.png.
# Called by `make demo`.
set -euo pipefail
cd "$(dirname "$0")/.."

bin=${DENSEVIT_BIN:-target/release/densevit}
photo=${1:-third_party/photos/chelsea.png}
street=${2:-third_party/photos/bus.jpg}
mkdir -p demo
log=demo/server.log
server=

stop() {
  if [[ -n $server ]] && kill -0 "$server" 2>/dev/null; then
    kill -TERM "$server"
    wait "$server" || true
  fi
  server=
}
trap stop EXIT

fail() {
  echo "demo: $1" >&2
  exit 1
}

echo "demo: starting the server (log: $log)"
"$bin" serve --listen 127.0.0.1:0 --no-admin >demo/server.out 2>"$log" &
server=$!
address=
for _ in $(seq 300); do
  address=$(sed -n 's/^listening on //p' demo/server.out)
  [[ -n $address ]] && break
  kill -0 "$server" 2>/dev/null || { cat "$log" >&2; fail "the server did not start"; }
  sleep 0.1
done
[[ -n $address ]] || fail "the server was not ready within 30 s; see $log"
rm -f demo/server.out

echo "demo: asking $address for the features of $photo"
"$bin" extract "$photo" -o demo/features.npy --force --server "$address" || fail "extraction failed"
"$bin" view "$photo" -o demo/out.png --server "$address" || fail "drawing failed"
echo "demo: asking for the object of $photo"
"$bin" view "$photo" --discover -o demo/object.png --server "$address" || fail "finding the object failed"
echo "demo: asking for the masks of $street"
"$bin" view "$street" --masks -o demo/masks.png --server "$address" || fail "segmenting failed"

echo "demo: asking the small model with registers for the features of $photo"
"$bin" view "$photo" --model vit-ti16-selfpatch-reg4 -o demo/registers.png --server "$address" || fail "drawing the small model's features failed"

echo "demo: stopping the server"
stop
echo "demo: done - look at demo/out.png (photo, features of the grid, upsampled bilinearly, upsampled by LiFT), demo/object.png (photo, what stands out in it), demo/masks.png (street, masks) and demo/registers.png (photo, features of a small model with registers); the features are in demo/features.npy"
