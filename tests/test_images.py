import io

import numpy as np
import pytest
from PIL import Image

from stbir.errors import InputError
from stbir.images import (
    Geometry,
    encode_png,
    open_picture,
    photo_pixels,
    render_strokes,
    sketch_pixels,
)
from tests.data.pictures import png


def noise(size: tuple[int, int] = (40, 40), seed: int = 0) -> Image.Image:
    rng = np.random.default_rng(seed)
    small = Image.fromarray(rng.integers(0, 256, (5, 5, 3), dtype=np.uint8))
    return small.resize(size, Image.Resampling.BICUBIC)


def saved(picture: Image.Image, form: str = "PNG", **options: object) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, form, **options)
    return buffer.getvalue()


@pytest.mark.parametrize("form", ["PNG", "JPEG", "WEBP", "GIF", "BMP"])
def test_a_picture_of_any_usual_form_opens_as_rgb(form: str) -> None:
    picture = open_picture(saved(Image.new("RGB", (9, 7), (200, 100, 50)), form))
    assert (picture.mode, picture.size) == ("RGB", (9, 7))
    np.testing.assert_allclose(np.asarray(picture)[3, 4], (200, 100, 50), atol=6)


CUT = {form: saved(noise(), form)[:-200] for form in ("PNG", "JPEG", "WEBP")}


@pytest.mark.parametrize("data", [b"", b"no picture", png()[:30], *CUT.values()], ids=range(6))
def test_what_is_no_whole_picture_is_refused_by_name(data: bytes) -> None:
    with pytest.raises(InputError, match=r"^photo 7: not a readable picture") as error:
        open_picture(data, "photo 7")
    assert "\n" not in str(error.value)
    assert "0x" not in str(error.value)


def test_a_picture_bomb_is_refused_before_it_is_decoded_and_without_a_warning() -> None:
    bomb = saved(Image.new("1", (12_000, 12_000)))
    with pytest.raises(InputError, match="12000 x 12000 exceeds"):
        open_picture(bomb)  # a warning would be an error here
    assert open_picture(png(size=(10, 10)), max_pixels=100).size == (10, 10)
    with pytest.raises(InputError, match="exceeds 99 pixels"):
        open_picture(png(size=(10, 10)), max_pixels=99)


def test_alpha_is_laid_on_white() -> None:
    assert np.asarray(open_picture(png((0, 0, 0, 0), mode="RGBA"))).min() == 255
    half = np.asarray(open_picture(png((0, 0, 0, 128), mode="RGBA")))
    assert half[0, 0].tolist() == pytest.approx([127] * 3, abs=1)
    indexed = Image.new("P", (4, 4), 1)
    indexed.putpalette([9, 9, 9, 7, 7, 7])
    assert np.asarray(open_picture(saved(indexed, transparency=1))).min() == 255


def test_sixteen_bit_grey_keeps_its_tones() -> None:
    deep = Image.fromarray(np.array([[0, 0x8000, 0xFFFF]], dtype=np.uint16))
    assert np.asarray(open_picture(saved(deep)))[0, :, 0].tolist() == [0, 128, 255]


def test_a_photo_taken_sideways_stands_upright() -> None:
    picture = noise((30, 20))
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees clockwise
    turned = open_picture(saved(picture, exif=exif))
    np.testing.assert_array_equal(np.asarray(turned), np.rot90(np.asarray(picture), -1))


@pytest.mark.parametrize("size", [16, 40, 63])
def test_pixels_have_the_size_and_channels_asked_for(size: int) -> None:
    photo, sketch = photo_pixels(saved(noise((50, 31))), size), sketch_pixels(saved(noise()), size)
    assert (photo.shape, photo.dtype) == ((3, size, size), np.uint8)
    assert (sketch.shape, sketch.dtype) == ((1, size, size), np.uint8)


def test_a_picture_of_the_size_asked_for_is_not_touched() -> None:
    picture = noise()
    np.testing.assert_array_equal(photo_pixels(saved(picture), 40), np.asarray(picture).transpose(2, 0, 1))


def test_an_oblong_picture_is_padded_with_white_not_squeezed() -> None:
    pixels = photo_pixels(png(0, size=(40, 20)), 40)
    assert (pixels[:, :9].min(), pixels[:, 11:29].max(), pixels[:, 31:].min()) == (255, 0, 255)


def test_a_flip_mirrors_left_and_right() -> None:
    data = saved(noise())
    moved = sketch_pixels(data, 40, Geometry(flip=True))
    np.testing.assert_allclose(moved.astype(int), sketch_pixels(data, 40)[..., ::-1], atol=1)


def test_the_neutral_geometry_changes_nothing() -> None:
    data = saved(noise())
    np.testing.assert_allclose(photo_pixels(data, 40, Geometry()).astype(int), photo_pixels(data, 40), atol=1)


def centre_of_ink(pixels: np.ndarray) -> tuple[float, float]:
    """Mean x, y of what is not white."""
    ink = 255.0 - pixels[0]
    y, x = np.mgrid[: ink.shape[0], : ink.shape[1]]
    return float((ink * x).sum() / ink.sum()), float((ink * y).sum() / ink.sum())


def dot(x: int, y: int, side: int = 60) -> bytes:
    pixels = np.full((side, side), 255, np.uint8)
    pixels[y - 2 : y + 3, x - 2 : x + 3] = 0
    return saved(Image.fromarray(pixels))


@pytest.mark.parametrize(
    ("geometry", "expected"),
    [
        (Geometry(), (40, 30)),
        (Geometry(shift=(0.1, -0.2)), (46, 18)),
        (Geometry(scale=1.5), (45, 30)),
        (Geometry(stretch=1.2), (42, 30)),
        (Geometry(flip=True), (19, 30)),
        (Geometry(rotate=90), (30, 40)),
    ],
)
def test_geometry_moves_a_dot_where_it_says(geometry: Geometry, expected: tuple[float, float]) -> None:
    found = centre_of_ink(sketch_pixels(dot(40, 30), 60, geometry))
    assert found == pytest.approx(expected, abs=1)


def test_what_moves_in_from_outside_is_white() -> None:
    pixels = photo_pixels(png(0, size=(40, 40)), 40, Geometry(shift=(0.5, 0)))
    assert pixels[:, :, :19].min() == 255
    assert pixels[:, :, 21:].max() == 0


def test_strokes_are_drawn_where_they_are_said_to_be() -> None:
    picture = np.asarray(render_strokes([[(0, 0.5), (1, 0.5)], [(0.25, 0.1)]], size=101, width=3))
    assert (picture[50] == 0).all()
    assert (picture[10, 25], picture[80].min()) == (0, 255)
    np.testing.assert_array_equal(
        np.asarray(Image.open(io.BytesIO(encode_png(Image.fromarray(picture))))), picture
    )
