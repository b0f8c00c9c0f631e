"""Cuts the graphs of a model directory to the outputs that the Python servers use, once: `cut.py MODEL TARGET`.

A session of ONNX Runtime computes every output of its graph, and `backbone.onnx` has all activations of all blocks. `densevit` cuts the
graph when it creates a session; here `onnx` does it. Weights and operators stay what they are.
"""

import sys
import tomllib
from pathlib import Path

from onnx.utils import extract_model

model, target = Path(sys.argv[1]), Path(sys.argv[2])
default = tomllib.loads((model / "model.toml").read_text())["backbone"]["default"]
target.mkdir(parents=True, exist_ok=True)
extract_model(model / "backbone.onnx", target / "backbone.onnx", ["image", "position"], ["{facet}.{layer}".format(**default), "pixels"])
extract_model(model / "lift.onnx", target / "lift.onnx", ["pixels", "features"], ["upsampled"])
