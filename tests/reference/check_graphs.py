"""Checks every graph that the importer writes with ONNX's own checker and shape inference: the default model and each fixture, in
both precisions, with the LiFT head, baked for one size, and with each form of segmentation head. Not part of `make test`; run after a change of `src/onnx` or `src/graph`:

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
SEGVIT = "tests/fixtures/segvit"
SEGMENTERS = {
    "segvit": ["--segment", f"{SEGVIT}/segvit_s2.safetensors", "--segment-taps", "token:1,token:0", "--segment-heads", "2"],
    # Masks of a grid of half the size join those of the full one.
    "segvit halved": ["--segment", f"{SEGVIT}/segvit_s3.safetensors", "--segment-taps", "token:1,query:1,token:0", "--segment-heads", "2",
                      "--query-downsample", "1"],
    "shrunk": ["--segment", f"{SEGVIT}/shrunk.safetensors", "--segment-any-backbone", "--query-downsample", "1"],
    "linear": ["--lift", HEAD, "--segment", f"{SEGVIT}/linear.safetensors", "--segment-any-backbone"],
}
VARIANTS |= SEGMENTERS | {f"{name} fp16": [*flags, "--precision", "fp16"] for name, flags in SEGMENTERS.items()}


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
