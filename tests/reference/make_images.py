"""Makes tests/fixtures/images: small image files of every kind that the decoder takes, beside what Pillow makes of them.

`NAME` is the file, `NAME.expected.png` the upright 8-bit RGB image (alpha composited on black). `resize_KERNEL.png` is
`resize_source.png` at another size by Pillow's `Image.resize`.

Run from the repository's root: python tests/reference/make_images.py   (pillow==13.0.0, numpy==2.4.6)
"""

from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

OUT = Path("tests/fixtures/images")
# x, y, width and height of parts of `resize_source.png` whose edges lie between pixels.
PARTS = {"inside": (7.3, 5.8, 40.25, 30.5), "zero": (22.2, 10.867924528301886, 57.599999999999994, 38.64150943396226)}


def picture(height: int, width: int) -> np.ndarray:
    """Smooth colours that differ in every corner, so that a wrong orientation shows."""
    y, x = np.mgrid[0:height, 0:width]
    channels = [255 * x / (width - 1), 255 * y / (height - 1), 128 + 100 * np.sin(x / 5 + y / 7)]
    return np.stack(channels, -1).round().astype(np.uint8)


def expect(name: str, image: Image.Image) -> None:
    """Writes what `name` should decode to."""
    image = ImageOps.exif_transpose(image)
    if image.mode in ("I;16", "I"):
        levels = np.asarray(image).astype(np.float64) / 257
        image = Image.fromarray(levels.round().astype(np.uint8)).convert("RGB")
    elif image.has_transparency_data:
        rgba = image.convert("RGBA")
        black = Image.new("RGBA", rgba.size, (0, 0, 0, 255))
        image = Image.alpha_composite(black, rgba).convert("RGB")
    image.convert("RGB").save(OUT / f"{name}.expected.png")


def save(name: str, image: Image.Image, **options) -> None:
    image.save(OUT / name, **options)
    expect(name, Image.open(OUT / name))


def main() -> None:
    OUT.mkdir(parents=True, exist_ok=True)
    rgb = Image.fromarray(picture(16, 24))
    for orientation in range(1, 9):
        exif = Image.Exif()
        exif[0x0112] = orientation
        save(f"orientation_{orientation}.jpg", rgb, quality=95, subsampling=0, exif=exif)
    save("progressive.jpg", rgb, quality=95, subsampling=0, progressive=True)
    save("cmyk.jpg", rgb.convert("CMYK"), quality=95)
    save("grey.jpg", rgb.convert("L"), quality=95)
    save("grey16.png", Image.fromarray((picture(16, 24)[..., 0].astype(np.uint16) * 257)))
    alpha = np.linspace(0, 255, 24).round().astype(np.uint8)[None].repeat(16, 0)
    save("rgba.png", Image.fromarray(np.dstack([picture(16, 24), alpha])))
    save("grey_alpha.png", Image.fromarray(np.dstack([picture(16, 24)[..., 0], alpha]), "LA"))
    save("palette.png", rgb.quantize(32))
    save("lossless.webp", rgb, lossless=True)
    save("lossy.webp", rgb, quality=95)
    save("rgb.bmp", rgb)
    save("lzw.tif", rgb, compression="tiff_lzw")
    frames = [rgb.quantize(64), Image.new("P", rgb.size)]
    frames[0].save(OUT / "animated.gif", save_all=True, append_images=frames[1:], duration=100)
    expect("animated.gif", Image.open(OUT / "animated.gif"))

    rng = np.random.default_rng(0)
    # Away from black and white: overshoot is clipped between the two passes, and which pass is first differs.
    noisy = 60 + picture(60, 90).astype(int) // 2 + rng.integers(-30, 30, (60, 90, 3))
    source = Image.fromarray(noisy.astype(np.uint8))
    source.save(OUT / "resize_source.png")
    kernels = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC, "lanczos": Image.Resampling.LANCZOS}
    for name, kernel in kernels.items():
        source.resize((42, 28), kernel).save(OUT / f"resize_{name}_28x42.png")
        source.resize((126, 84), kernel).save(OUT / f"resize_{name}_84x126.png")
        for part, (x, y, width, height) in PARTS.items():
            source.resize((96, 64), kernel, box=(x, y, x + width, y + height)).save(OUT / f"resize_{name}_part_{part}.png")


main()
