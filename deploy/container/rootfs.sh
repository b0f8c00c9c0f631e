#!/usr/bin/env bash
# Assembles the file system of the image: the program, ONNX Runtime, the libraries that both need, their licences, a user without rights.
# The Dockerfile calls it in its build stage, and check.sh where there is no container engine: the image is what this leaves, nothing else.
#
#   rootfs.sh OUT BINARY [cpu|cuda]
set -euo pipefail
cd "$(dirname "$0")/../.."

out=${1:?usage: rootfs.sh OUT BINARY [cpu|cuda]}
binary=${2:?usage: rootfs.sh OUT BINARY [cpu|cuda]}
runtime=${3:-cpu}
libraries=third_party/onnxruntime
config=deploy/serve.toml
if [[ $runtime == cuda ]]; then
  libraries=third_party/onnxruntime-cuda
  config=deploy/serve.cuda.toml
fi
[[ -e $libraries/libonnxruntime.so ]] || { echo "rootfs: $libraries is not there: run make setup first" >&2; exit 1; }

rm -rf "$out"
mkdir -p "$out"/{etc/densevit,models,proc,usr/bin,usr/lib/densevit,usr/share/doc/densevit}
install -m 755 "$binary" "$out/usr/bin/densevit"
strip "$out/usr/bin/densevit"
cp -P "$libraries"/*.so* "$out/usr/lib/densevit/"
# Where the library is, is said by ORT_DYLIB_PATH in an image.
grep -v '^library' "$config" >"$out/etc/densevit/serve.toml"
install -m 644 LICENSE "$out/usr/share/doc/densevit/LICENSE"
install -m 644 third_party/onnxruntime/{LICENSE,ThirdPartyNotices.txt} "$out/usr/lib/densevit/"

# What all of them are linked against, where they look for it. CUDA's libraries lie beside each other; the driver alone comes from the host.
needed() {
  local missing
  missing=$(LD_LIBRARY_PATH=$libraries ldd "$1" | grep 'not found' | grep -v 'libcuda\.so\.1' || true)
  [[ -z $missing ]] || { echo "rootfs: $1 needs what is not here: $missing" >&2; return 1; }
  LD_LIBRARY_PATH=$libraries ldd "$1" | grep -oE '/[^ ]+' | grep -v "$PWD" | grep -v "^$libraries/" || true
}
all=$(for file in "$binary" "$libraries"/*.so*; do [[ -L $file ]] || needed "$file"; done)
sort -u <<<"$all" | while read -r library; do
  [[ -e $library ]] || continue
  install -D -m 755 "$(readlink -f "$library")" "$out$library"
  package=$(dpkg -S "$(readlink -f "$library")" 2>/dev/null | cut -d: -f1 | head -1 || true)
  licence=/usr/share/doc/${package:-none}/copyright
  [[ ! -e $licence ]] || install -D -m 644 "$licence" "$out$licence"
done

echo 'densevit:x:65532:65532::/nonexistent:/usr/sbin/nologin' >"$out/etc/passwd"
echo 'densevit:x:65532:' >"$out/etc/group"
echo 'hosts: files dns' >"$out/etc/nsswitch.conf"
echo "rootfs: $out, $(du -sm --apparent-size "$out" | cut -f1) MB ($runtime)"
