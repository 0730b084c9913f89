"""The pictures of docs/pad.md can be remade, and the ones that are there are shown."""

import io
from pathlib import Path

import pytest
from PIL import Image
from playwright.sync_api import Browser

from tests.conftest import ROOT
from tests.serve.web.portraits import SIZES, portraits

NAMES = ["desk-light.png", "desk-dark.png", "phone-light.png", "phone-dark.png"]
MOST_BYTES = 150_000


def test_four_pictures_are_drawn(chromium: Browser, served: tuple[object, str], tmp_path: Path) -> None:
    made = portraits(chromium, served[1], tmp_path)
    assert [file.name for file in made] == NAMES
    for file in made:
        assert file.stat().st_size < MOST_BYTES
        with Image.open(file) as picture:
            size, scheme = file.stem.split("-")
            assert picture.width == SIZES[size]["width"]
            corner = picture.convert("L").getpixel((3, 3))
            assert isinstance(corner, int)
            assert (corner < 128) == (scheme == "dark")


@pytest.mark.parametrize("name", NAMES)
def test_every_picture_of_the_docs_is_small_and_shown(name: str) -> None:
    data = (ROOT / "docs" / "pad" / name).read_bytes()
    assert len(data) < MOST_BYTES
    with Image.open(io.BytesIO(data)) as picture:
        assert picture.format == "PNG"
    assert f"(pad/{name})" in (ROOT / "docs" / "pad.md").read_text()
