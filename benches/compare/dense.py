"""Dense features of images with ONNX Runtime: what both Python servers share.

In: an image file and a size. Out: the map of the model's default activation after one LiFT pass, as `densevit` computes it.

# Design
Written as a careful engineer would write it, not to be beaten: the graph is cut to the two outputs that are used (`cut.py`, once), sessions
have the settings of `densevit` (every optimisation, as many threads as cores, no spinning), the map goes from the backbone to the head
without a copy. OpenCV decodes, because it took a third of Pillow's time; Pillow resizes, because its bicubic kernel, which filters when it
shrinks, is the one that the model was trained with, and OpenCV has none like it.
"""

import functools
import os
import tomllib
from pathlib import Path

import cv2
import numpy as np
import onnxruntime as ort
from PIL import Image
from safetensors.numpy import load_file

# Sides in pixels, and input pixels at most: the limits of `densevit`.
PATCH = 14
MAX_PIXELS = 1 << 20


class BadImage(ValueError):
    """An image or a size that cannot be used, in words for the caller."""


def decode(encoded: bytes, height: int, width: int) -> np.ndarray:
    """The image as the model's input: RGB bytes, `[height, width, 3]`."""
    if not (height > 0 and width > 0 and height % PATCH == 0 and width % PATCH == 0 and height * width <= MAX_PIXELS):
        raise BadImage(f"{height} x {width} px: both sides must be multiples of {PATCH}, and at most {MAX_PIXELS} px in all")
    pixels = cv2.imdecode(np.frombuffer(encoded, np.uint8), cv2.IMREAD_COLOR_RGB) if encoded else None
    if pixels is None:
        raise BadImage("the image cannot be decoded")
    if pixels.shape[:2] == (height, width):
        return pixels
    return np.asarray(Image.fromarray(pixels).resize((width, height), Image.Resampling.BICUBIC))


def cubic_weights(own: int, grid: int) -> np.ndarray:
    """Cubic interpolation (a = -0.75, half-pixel centres, borders repeated) of `own` values to `grid`, as a matrix `[grid, own]`."""
    centre = (np.arange(grid) + 0.5) * (own / grid) - 0.5
    first = np.floor(centre).astype(int)
    weights = np.zeros((grid, own), np.float64)
    for tap in range(-1, 3):
        x = np.abs(centre - (first + tap))
        near, far = (1.25 * x - 2.25) * x * x + 1, -0.75 * (((x - 5) * x + 8) * x - 4)
        np.add.at(weights, (np.arange(grid), np.clip(first + tap, 0, own - 1)), np.where(x <= 1, near, far))
    return weights


def default_tap(manifest: dict) -> str:
    """Name of the backbone's output that is served: of the model's default activation."""
    return "{facet}.{layer}".format(**manifest["backbone"]["default"])


class DenseModel:
    """The model of a directory, on the CPU."""

    def __init__(self, folder: Path, cut: Path, n_threads: int) -> None:
        """Opens a model directory, with the graphs that `cut.py` left in `cut`."""
        self.manifest = tomllib.loads((folder / "model.toml").read_text())
        self._tap = default_tap(self.manifest)
        self._table = load_file(folder / "position.safetensors")["position"].astype(np.float64)
        options = ort.SessionOptions()
        options.intra_op_num_threads = n_threads
        options.inter_op_num_threads = 1
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_ALL
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        graphs = (cut / "backbone.onnx", cut / "lift.onnx")
        self._backbone, self._lift = (ort.InferenceSession(graph, options, providers=["CPUExecutionProvider"]) for graph in graphs)

    @functools.lru_cache(maxsize=16)  # noqa: B019 - there is one model, and it lives as long as the process
    def _position(self, rows: int, cols: int) -> ort.OrtValue:
        own_rows, own_cols, width = self._table.shape
        fitted = np.einsum("rm,cn,mnd->rcd", cubic_weights(own_rows, rows), cubic_weights(own_cols, cols), self._table, optimize=True)
        return ort.OrtValue.ortvalue_from_numpy(np.ascontiguousarray(fitted.reshape(1, rows * cols, width), np.float32))

    def run(self, images: list[np.ndarray]) -> np.ndarray:
        """The maps of images of one size: `[n, rows, cols, channels]`, f32."""
        batch = images[0][None] if len(images) == 1 else np.stack(images)
        position = self._position(batch.shape[1] // PATCH, batch.shape[2] // PATCH)
        inputs = {"image": ort.OrtValue.ortvalue_from_numpy(np.ascontiguousarray(batch)), "position": position}
        features, pixels = self._backbone.run_with_ort_values([self._tap, "pixels"], inputs)
        (upsampled,) = self._lift.run_with_ort_values(["upsampled"], {"features": features, "pixels": pixels})
        return upsampled.numpy()


def n_cores() -> int:
    return len(os.sched_getaffinity(0))
