"""Small images and files for tests."""

import io
from pathlib import Path

from PIL import Image, ImageDraw


def png(colour: int | tuple[int, ...] = 128, size: tuple[int, int] = (8, 8), mode: str = "RGB") -> bytes:
    """A PNG of one colour; a number is grey."""
    value = (colour,) * len(mode) if isinstance(colour, int) and len(mode) > 1 else colour
    buffer = io.BytesIO()
    Image.new(mode, size, value).save(buffer, "PNG")
    return buffer.getvalue()


def drawing(
    paper: tuple[int, ...] | int = 255, ink: tuple[int, ...] | int = 0, side: int = 64, mode: str = "RGB"
) -> Image.Image:
    """A figure of four strokes with soft edges, of one ink on one paper."""
    mask = Image.new("L", (4 * side, 4 * side))
    for line in ((5, 2, 5, 14), (5, 8, 11, 8), (11, 8, 11, 14), (5, 2, 7, 2)):
        ImageDraw.Draw(mask).line([point * side / 4 for point in line], fill=255, width=side // 8)
    mask = mask.resize((side, side), Image.Resampling.BOX)
    colors = [(c,) * len(mode) if isinstance(c, int) and len(mode) > 1 else c for c in (paper, ink)]
    return Image.composite(Image.new(mode, mask.size, colors[1]), Image.new(mode, mask.size, colors[0]), mask)


def sketch_png(number: int = 0) -> bytes:
    """A PNG of a sketch, different for each number below 256."""
    buffer = io.BytesIO()
    image = drawing(side=16, mode="L")
    image.putpixel((0, 0), number)
    image.save(buffer, "PNG")
    return buffer.getvalue()


def write_files(root: Path, files: dict[str, bytes | str]) -> Path:
    """Write files, relative path → content, below `root`."""
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)
    return root
