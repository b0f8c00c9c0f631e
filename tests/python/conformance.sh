#!/usr/bin/env bash
# The official client of the Open Inference Protocol, `tritonclient`, against a server with tiny models.
# Arguments go to unittest, e.g. `tests/python/conformance.sh -k stream`.
set -euo pipefail
cd "$(dirname "$0")/../.."

tests/python/venv.sh
DENSEVIT_MODELS=$(mktemp -d)
export DENSEVIT_MODELS
trap 'rm -rf "$DENSEVIT_MODELS"' EXIT

# The models of tests/serve: random weights, two blocks, 64 channels; a head of seven classes.
fixtures=tests/fixtures
import() { target/release/densevit import --out "$DENSEVIT_MODELS" "$@" >"$DENSEVIT_MODELS/.log" 2>&1 || { cat "$DENSEVIT_MODELS/.log" >&2; exit 1; }; }
import "$fixtures/backbones/dino_s16.safetensors" --name tiny --lift "$fixtures/lift/lift_c64_p16.safetensors" \
  --segment "$fixtures/segvit/atm_k7_c64_d32.safetensors" --segment-taps token:1,token:0,token:1 --segment-heads 4
import "$fixtures/backbones/dinov2_s14_reg4.safetensors" --name registers

.venv/bin/python -m unittest discover --start-directory tests/python/conformance "$@"
