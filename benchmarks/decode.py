"""Compares ways to decode a photo for the encoder and its thumbnail, with realistic camera sizes.

`python benchmarks/decode.py` makes photos of 12, 2 and 0.1 megapixels with the spectrum of natural images,
and decodes each to `--size` pixels and a thumbnail. The sides alternate. The last line is JSON, for each
photo and side: CPU milliseconds, `speedup` over decoding at full size (median over pairs), and the mean and
largest difference from it in the encoder's pixels (0 to 255). simplejpeg, if installed, is a further side.
"""

import argparse
import io
import statistics
import time
from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

import numpy as np
import torch
from PIL import Image

from ray_jobs.cli import run
from stbir.gallery.thumbnail import MAX_SIDE, encode_thumbnail
from stbir.images import Pixels, open_image, resize_photo

SIZES = {"12 MP": (4000, 3000), "2 MP": (1632, 1224), "0.1 MP": (384, 288)}
_ROTATED = 6  # EXIF orientation: 90 degrees
Side = Callable[[bytes, int], Pixels]


def main(args: argparse.Namespace) -> dict[str, Any]:
    """Measure each photo."""
    torch.set_num_threads(1)
    results = {}
    for megapixels, shape in SIZES.items():
        image = _photo(*shape)
        for kind, data in _files(image).items():
            results[f"{megapixels} {kind}"] = _measure(data, kind, args)
            print(f"{megapixels} {kind}: {results[f'{megapixels} {kind}']}", flush=True)
    return {"size": args.size, "pairs": args.pairs, "photos": results}


def _photo(width: int, height: int) -> Image.Image:
    """Noise whose amplitude falls with the frequency, as in natural images (Field 1987)."""
    rng = np.random.default_rng(0)
    frequency = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)[None])
    frequency[0, 0] = np.inf
    channels = []
    for _ in range(3):
        phase = np.exp(2j * np.pi * rng.random(frequency.shape))
        values = np.fft.irfft2(phase / frequency, (height, width))
        channels.append(np.clip(128 + 50 * values / values.std(), 0, 255))
    return Image.fromarray(np.stack(channels, -1).astype(np.uint8))


def _files(image: Image.Image) -> dict[str, bytes]:
    exif = Image.Exif()
    exif[0x0112] = _ROTATED
    return {
        "JPEG": _encode(image, "JPEG", quality=90),
        "JPEG rotated by EXIF": _encode(image, "JPEG", quality=90, exif=exif),
        "JPEG CMYK": _encode(image.convert("CMYK"), "JPEG", quality=90),
        "PNG": _encode(image, "PNG", compress_level=1),
        "WebP": _encode(image, "WEBP", quality=80, method=0),
    }


def _encode(image: Image.Image, form: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()


def _full(data: bytes, size: int) -> Pixels:
    return _outputs(open_image(data), size)


def _stbir(data: bytes, size: int) -> Pixels:
    return _outputs(open_image(data, side=size), size)


def _torchvision(data: bytes, size: int) -> Pixels:
    from torchvision.io import ImageReadMode, decode_image

    pixels = decode_image(torch.frombuffer(bytearray(data), dtype=torch.uint8), ImageReadMode.RGB, True)
    return _outputs(Image.fromarray(pixels.permute(1, 2, 0).numpy()), size)


def _simplejpeg(data: bytes, size: int) -> Pixels:
    import simplejpeg

    side = 2 * max(size, MAX_SIDE)
    return _outputs(Image.fromarray(simplejpeg.decode_jpeg(data, min_height=side, min_width=side)), size)


def _outputs(image: Image.Image, size: int) -> Pixels:
    """The encoder's pixels; the thumbnail is made, too."""
    pixels = resize_photo(image, size)
    encode_thumbnail(image)
    return pixels


def _sides(kind: str) -> dict[str, Side]:
    """The sides that read this kind of file."""
    sides: dict[str, Side] = {"full": _full, "stbir": _stbir}
    if kind != "JPEG CMYK":
        sides["torchvision"] = _torchvision
    if kind == "JPEG" and find_spec("simplejpeg"):
        sides["simplejpeg"] = _simplejpeg
    return sides


def _measure(data: bytes, kind: str, args: argparse.Namespace) -> dict[str, Any]:
    sides = _sides(kind)
    expected = {name: side(data, args.size).astype(int) for name, side in sides.items()}
    times: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(args.pairs):
        for name, side in sides.items():
            start = time.process_time()
            side(data, args.size)
            times[name].append(time.process_time() - start)
    return {name: _compare(times["full"], times[name], expected["full"], expected[name]) for name in sides}


def _compare(full_s: list[float], side_s: list[float], full: Any, pixels: Any) -> dict[str, float]:
    difference = np.abs(full - pixels)
    speedups = [base / side for base, side in zip(full_s, side_s, strict=True)]
    return {
        "ms": round(statistics.median(side_s) * 1000, 2),
        "speedup": round(statistics.median(speedups), 2),
        "mean_difference": round(float(difference.mean()), 2),
        "max_difference": int(difference.max()),
    }


def parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser("decode", description=__doc__)
    parser.add_argument("--size", type=int, default=128, help="of the encoder's input (default: %(default)s)")
    parser.add_argument("--pairs", type=int, default=7, help="decodes of each side (default: %(default)s)")
    return parser


if __name__ == "__main__":
    run(main, parser())
