"""Do all servers answer the same features? Asked before anything is timed.

Two kinds of image. A PNG of the very size of the model's input is neither resized nor rounded by a decoder: its features must agree up to
the rounding to f16. A JPEG is decoded and resized by each server with its own libraries.
"""

import io
import sys
import urllib.request
from pathlib import Path

import grpc
import numpy as np
from http_form import CONTENT_TYPE, http_form
from PIL import Image

sys.path.insert(0, str(Path(__file__).parents[2] / "proto"))
pb, rpc = grpc.protos_and_services("densevit/v1/dense_vision.proto")

# Largest difference, of the largest value. PNG: one step of f16 at the largest value. JPEG: decoders differ by a few levels where colour is
# stored at half the resolution, and resizes by up to two (`src/preprocess/resize.rs`); 0.029 was seen, a wrong kernel or channel order gives
# several times as much.
PNG_TOLERANCE = 2**-10
JPEG_TOLERANCE = 0.05
TIMEOUT_S = 60


def ask(server, encoded: bytes, height: int, width: int) -> np.ndarray:
    return (ask_grpc if server.protocol == "grpc" else ask_http)(server.address, encoded, height, width).astype(np.float32)


def ask_grpc(address: str, encoded: bytes, height: int, width: int) -> np.ndarray:
    exact = pb.Preprocess(exact=pb.Size(height=height, width=width))
    request = pb.ExtractRequest(image=pb.Image(encoded=encoded), preprocess=exact, features=pb.FeatureOptions(dtype=pb.DTYPE_F16))
    with grpc.insecure_channel(address, [("grpc.max_receive_message_length", 64 << 20)]) as channel:
        answer = rpc.DenseVisionStub(channel).Extract(request, timeout=TIMEOUT_S)
    header = answer.header
    return np.frombuffer(answer.data, np.float16).reshape(header.rows, header.cols, header.channels)


def ask_http(address: str, encoded: bytes, height: int, width: int) -> np.ndarray:
    request = urllib.request.Request(f"http://{address}/predict", http_form(encoded, height, width), {"Content-Type": CONTENT_TYPE})
    with urllib.request.urlopen(request, timeout=TIMEOUT_S) as answer:
        shape = list(map(int, answer.headers["x-shape"].split(",")))
        return np.frombuffer(answer.read(), np.float16).reshape(shape)


def check(servers: list, jpeg: bytes, sizes: list) -> dict:
    """Compares the answers of all servers with those of the first; returns the largest differences by server and kind of image."""
    photo = Image.open(io.BytesIO(jpeg)).convert("RGB")
    worst = {server.name: {"png": 0.0, "jpeg": 0.0} for server in servers[1:]}
    for height, width in sizes:
        png = io.BytesIO()
        photo.resize((width, height), Image.Resampling.BICUBIC).save(png, "PNG")
        for kind, encoded, tolerance in (("png", png.getvalue(), PNG_TOLERANCE), ("jpeg", jpeg, JPEG_TOLERANCE)):
            expected = ask(servers[0], encoded, height, width)
            for server in servers[1:]:
                got = ask(server, encoded, height, width)
                if got.shape != expected.shape:
                    sys.exit(f"compare: {server.name} answers {got.shape} instead of {expected.shape}")
                difference = float(np.abs(got - expected).max() / np.abs(expected).max())
                # Written so that a NaN fails.
                if not difference <= tolerance:
                    what = f"{kind}, {height} x {width} px"
                    sys.exit(f"compare: {server.name} differs by {difference:.2g} of the largest value ({what}; allowed {tolerance:.2g})")
                worst[server.name][kind] = max(worst[server.name][kind], difference)
    return worst
