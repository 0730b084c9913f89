"""Small images and files for tests."""

import io
from pathlib import Path

from PIL import Image


def png(colour: int | tuple[int, ...] = 128, size: tuple[int, int] = (8, 8), mode: str = "RGB") -> bytes:
    """A PNG of one colour; a number is grey."""
    value = (colour,) * len(mode) if isinstance(colour, int) and len(mode) > 1 else colour
    buffer = io.BytesIO()
    Image.new(mode, size, value).save(buffer, "PNG")
    return buffer.getvalue()


def write_files(root: Path, files: dict[str, bytes | str]) -> Path:
    """Write files, relative path → content, below `root`."""
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)
    return root
