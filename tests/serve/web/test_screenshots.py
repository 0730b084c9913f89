"""The screenshots of the documentation: the script takes them, and docs/serve.md shows them."""

import io
from pathlib import Path

import pytest
from PIL import Image
from playwright.sync_api import Browser

from tests.conftest import ROOT
from tests.serve.web.screenshots import SIZES, take_screenshots

NAMES = [f"{size}-{scheme}.webp" for size in SIZES for scheme in ("light", "dark")]
MAX_BYTES = 150_000


def test_script_takes_all_screenshots(chromium: Browser, url: str, tmp_path: Path) -> None:
    files = take_screenshots(chromium, url, tmp_path)
    assert [file.name for file in files] == NAMES
    for file in files:
        assert file.stat().st_size < MAX_BYTES
        with Image.open(file) as image:
            size, scheme = file.stem.split("-")
            assert image.size == tuple(SIZES[size].values())
            corner = image.convert("L").getpixel((3, 3))
            assert isinstance(corner, int)
            assert (corner < 128) == (scheme == "dark")


@pytest.mark.parametrize("name", NAMES)
def test_documentation_shows_small_screenshots(name: str) -> None:
    data = (ROOT / "docs" / "pad" / name).read_bytes()
    assert len(data) < MAX_BYTES
    with Image.open(io.BytesIO(data)) as image:
        assert image.format == "WEBP"
    assert f"(pad/{name})" in (ROOT / "docs" / "serve.md").read_text()
