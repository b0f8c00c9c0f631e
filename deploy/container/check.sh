#!/usr/bin/env bash
# Builds the image and serves the default model from it, without rights and with a root that cannot be written: a photo extracted through
# gRPC must equal the one that the program here extracts, byte for byte. Without a container engine the same file system is assembled by
# the same script and served in a chroot.
set -euo pipefail
cd "$(dirname "$0")/../.."

bin=${DENSEVIT_BIN:-target/release/densevit}
photo=third_party/photos/chelsea.png
work=target/container
max_mb=100
server= container=

stop() {
  [[ -z $container ]] || docker rm -f "$container" >/dev/null 2>&1 || true
  if [[ -n $server ]] && kill -0 "$server" 2>/dev/null; then
    kill -TERM "$server"
    wait "$server" || true
  fi
}
trap stop EXIT

fail() {
  echo "container: $1" >&2
  [[ ! -s $work/server.err ]] || tail -20 "$work/server.err" >&2
  exit 1
}

# Port that the kernel has free now.
free_port() { python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'; }

mkdir -p "$work"
port=$(free_port)
if docker info >/dev/null 2>&1; then
  echo "container: building the image"
  DOCKER_BUILDKIT=1 docker build --quiet -t densevit:check . >/dev/null
  size_mb=$(($(docker image inspect -f '{{.Size}}' densevit:check) / 1000000))
  container=$(docker run -d --read-only --cap-drop ALL --security-opt no-new-privileges -p "127.0.0.1:$port:50051" \
    -v "$PWD/models:/models:ro" densevit:check)
  how="in a container"
else
  echo "container: no engine answers here; assembling the same file system for a chroot"
  deploy/container/rootfs.sh "$work/rootfs" "$bin"
  size_mb=$(du -sm --apparent-size "$work/rootfs" | cut -f1)
  for model in models/*/[0-9]*; do
    mkdir -p "$work/rootfs/${model%/*}"
    cp -al "$model" "$work/rootfs/${model%/*}/" 2>/dev/null || cp -a "$model" "$work/rootfs/${model%/*}/"
  done
  # The mount of /proc is seen by this server alone. Who is not root is at least nobody but themselves in there.
  as=65532:65532 enter=(unshare --mount)
  [[ $(id -u) == 0 ]] || as=0:0 enter=(unshare --mount --map-root-user)
  env -i PATH="$PATH:/usr/sbin" ORT_DYLIB_PATH=/usr/lib/densevit/libonnxruntime.so LD_LIBRARY_PATH=/usr/lib/densevit \
    DENSEVIT__MODELS__DIR=/models DENSEVIT__LOG__FORMAT=json "${enter[@]}" bash -c \
    'mount -t proc proc "$1/proc" 2>/dev/null || echo "container: without /proc" >&2; exec chroot --userspec="$0" "$@"' "$as" \
    "$work/rootfs" /usr/bin/densevit serve --config /etc/densevit/serve.toml --listen "127.0.0.1:$port" --no-admin \
    >"$work/server.out" 2>"$work/server.err" &
  server=$!
  how="in a chroot"
fi

ready=
for _ in $(seq 120); do
  if "$bin" health --server "127.0.0.1:$port" >/dev/null 2>&1; then ready=yes; break; fi
  [[ -z $server ]] || kill -0 "$server" 2>/dev/null || fail "the server did not start"
  sleep 0.5
done
[[ -n $ready ]] || fail "the server was not ready within 60 s"

"$bin" extract "$photo" -o "$work/served.npy" --force --server "127.0.0.1:$port" >/dev/null || fail "extraction failed"
"$bin" extract "$photo" -o "$work/here.npy" --force >/dev/null || fail "extraction failed here"
cmp "$work/served.npy" "$work/here.npy" || fail "the features differ from those of the program outside"
((size_mb <= max_mb)) || fail "$size_mb MB without a model, the limit is $max_mb MB"
echo "container: ok - served $how as a user without rights, $size_mb MB without a model (at most $max_mb)"
