"""Makes tests/fixtures/masks/masks.safetensors: masks and label maps with what pycocotools makes of them, scores with what PyTorch makes
of them.

- `NAME.bits`: `[rows, ceil(cols / 8)]` u8, `numpy.packbits` of a mask along its rows; `NAME.size`: `[rows, cols]` i64;
  `NAME.rle`: the compressed string of `pycocotools.mask.encode`, u8; `NAME.area`: `pycocotools.mask.area`, i64.
- `labels`: `[rows, cols]` u8 of the classes 0 to 4 and void (255), `labels.rle_CLASS`: the string of each class alone.
- `scores`: `[rows, cols, K]` f32; `scores.HEIGHTxWIDTH`: `torch.nn.functional.interpolate(mode="bilinear", align_corners=False)` of it,
  `[height, width, K]`; `scores.HEIGHTxWIDTH.labels`: `[height, width]` u8, its `argmax` over K.

Run from the repository's root with the packages of requirements.txt: python tests/reference/make_masks.py
"""

from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from pycocotools import mask as coco
from safetensors.numpy import save_file

OUT = Path("tests/fixtures/masks/masks.safetensors")
# Whole factors, odd factors, shrinking, and one axis each way.
SIZES = [(10, 14), (37, 29), (3, 4), (4, 41)]


def rle(mask):
    return coco.encode(np.asfortranarray(mask.astype(np.uint8)))


def string(mask):
    return np.frombuffer(rle(mask)["counts"], np.uint8)


def blobs(rng, height, width, n_blobs):
    """Discs, some of them holes."""
    y, x = np.mgrid[0:height, 0:width]
    mask = np.zeros((height, width), bool)
    for idx in range(n_blobs):
        centre, radius = rng.uniform(0, (height, width)), rng.uniform(2, height / 3)
        mask[np.hypot(y - centre[0], x - centre[1]) < radius] = idx % 3 != 2
    return mask


def masks():
    rng = np.random.default_rng(0)
    yield "pixel", np.ones((1, 1), bool)
    yield "nothing", np.zeros((5, 9), bool)
    yield "everything", np.ones((9, 5), bool)
    yield "row", rng.random((1, 77)) < 0.5
    yield "column", rng.random((77, 1)) < 0.5
    yield "noise", rng.random((33, 70)) < 0.4
    yield "checkerboard", np.indices((20, 21)).sum(0) % 2 == 0
    yield "blobs", blobs(rng, 120, 161, 12)
    # Runs of thousands of pixels: numbers of three and four letters.
    yield "large", np.pad(blobs(rng, 40, 50, 5), ((300, 60), (150, 120)))


def labels():
    """Five classes and void, without class 3."""
    rng = np.random.default_rng(1)
    labels = np.zeros((64, 83), np.uint8)
    for label in (1, 2, 4, 255, 1, 4):
        labels[blobs(rng, *labels.shape, 2)] = label
    return labels


def main():
    arrays = {}
    for name, mask in masks():
        arrays[f"{name}.bits"] = np.packbits(mask, axis=1)
        arrays[f"{name}.size"] = np.array(mask.shape, np.int64)
        arrays[f"{name}.rle"] = string(mask)
        arrays[f"{name}.area"] = np.array([coco.area(rle(mask))], np.int64)
    arrays["labels"] = labels()
    for label in range(5):
        arrays[f"labels.rle_{label}"] = string(arrays["labels"] == label)
    torch.manual_seed(0)
    scores = torch.rand(5, 7, 3)
    arrays["scores"] = scores.numpy()
    for height, width in SIZES:
        resized = F.interpolate(scores.permute(2, 0, 1)[None], (height, width), mode="bilinear", align_corners=False)[0]
        name = f"scores.{height}x{width}"
        arrays[name] = resized.permute(1, 2, 0).contiguous().numpy()
        arrays[f"{name}.labels"] = resized.argmax(0).to(torch.uint8).numpy()
    OUT.parent.mkdir(parents=True, exist_ok=True)
    save_file({name: np.ascontiguousarray(array) for name, array in arrays.items()}, OUT)
    print(OUT, OUT.stat().st_size, "bytes")


main()
