"""Checks every graph that the importer writes with ONNX's own checker and shape inference: the default model and each fixture, in
both precisions, with the LiFT head, and baked for one size. Not part of `make test`; run after a change of `src/onnx` or `src/graph`:

    cargo build --release && python tests/reference/check_graphs.py      (onnx==1.23.2)
"""

import subprocess
import sys
import tempfile
from pathlib import Path

import onnx

FIXTURES = Path("tests/fixtures/backbones")
HEAD = "tests/fixtures/lift/lift_c64_p16.safetensors"
SOURCES = sorted(path for path in FIXTURES.glob("*.safetensors") if "golden" not in path.name)
SOURCES += sorted(FIXTURES.glob("*/model.safetensors")) + sorted(FIXTURES.glob("*/model.safetensors.index.json"))
VARIANTS = {"fp32": [], "fp16": ["--precision", "fp16"], "lift": ["--lift", HEAD], "baked": ["--bake", "112x112"]}


def check(folder: Path, what: str) -> int:
    graphs = sorted(folder.rglob("*.onnx"))
    for graph in graphs:
        onnx.checker.check_model(str(graph), full_check=True)
        # The signature is a promise: inference must not find other shapes.
        onnx.shape_inference.infer_shapes(onnx.load(graph), strict_mode=True, data_prop=True)
    print(f"  {what}: {', '.join(graph.name for graph in graphs)}")
    return len(graphs)


def main() -> None:
    n_graphs = check(Path("models"), "models/")
    for source in SOURCES:
        for variant, flags in VARIANTS.items():
            with tempfile.TemporaryDirectory() as out:
                command = ["target/release/densevit", "import", str(source), "--name", "m", "--out", out, *flags]
                outcome = subprocess.run(command, capture_output=True, text=True, check=False)
                if outcome.returncode:
                    sys.exit(f"{source} {variant}: {outcome.stderr}")
                n_graphs += check(Path(out), f"{source} {variant}")
    print(f"{n_graphs} graphs in order")


main()
