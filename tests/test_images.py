"""Decoding, resizing and geometry of images."""

import functools
import io

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from PIL import Image, ImageDraw, ImageOps

from stbir.errors import ImageTooLargeError, InputError
from stbir.images import (
    MAX_SIDE,
    PHOTO_FORMATS,
    QUERY_FORMATS,
    Geometry,
    Resize,
    decode_photo,
    decode_query_sketch,
    decode_sketch,
    encode_png,
    open_image,
    read_sketch,
    render_strokes,
    resize_photo,
)
from tests.data.image_files import png


def random_image(size: tuple[int, int] = (40, 40), seed: int = 0) -> Image.Image:
    rng = np.random.default_rng(seed)
    small = Image.fromarray(rng.integers(0, 256, (5, 5, 3), dtype=np.uint8))
    return small.resize(size, Image.Resampling.BICUBIC)


def encode(image: Image.Image, form: str = "PNG", **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()


@pytest.mark.parametrize("form", ["PNG", "JPEG", "WEBP", "GIF", "BMP"])
def test_common_formats_open_as_rgb(form: str) -> None:
    image = open_image(encode(Image.new("RGB", (9, 7), (200, 100, 50)), form))
    assert (image.mode, image.size) == ("RGB", (9, 7))
    np.testing.assert_allclose(np.asarray(image)[3, 4], (200, 100, 50), atol=6)


TRUNCATED = {form: encode(random_image(), form)[:-200] for form in ("PNG", "JPEG", "WEBP")}


@pytest.mark.parametrize("data", [b"", b"not an image", png()[:30], *TRUNCATED.values()], ids=range(6))
def test_invalid_or_truncated_data_is_an_input_error_with_the_name(data: bytes) -> None:
    with pytest.raises(InputError, match=r"^photo 7: not a readable image") as error:
        open_image(data, "photo 7")
    assert "\n" not in str(error.value)
    assert "0x" not in str(error.value)


def test_a_decompression_bomb_is_refused_before_decoding() -> None:
    bomb = encode(Image.new("1", (9_500, 9_500)))
    with pytest.raises(InputError, match="9500 x 9500 exceeds"):
        open_image(bomb)  # a warning would be an error here
    assert open_image(png(size=(10, 10)), max_pixels=100).size == (10, 10)
    with pytest.raises(InputError, match="exceeds 99 pixels"):
        open_image(png(size=(10, 10)), max_pixels=99)


@pytest.mark.parametrize("size", [(1, MAX_SIDE + 1), (MAX_SIDE + 1, 1)])
def test_a_side_that_is_too_long_is_refused_before_decoding(size: tuple[int, int]) -> None:
    with pytest.raises(ImageTooLargeError, match=f"exceeds .* {MAX_SIDE} on one side"):
        open_image(encode(Image.new("1", size)))


def test_formats_that_other_programs_read_are_unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    monkeypatch.setattr("PIL.EpsImagePlugin.Ghostscript", lambda *args, **options: calls.append(args))
    data = encode(Image.new("RGB", (9, 7)), "EPS")
    assert Image.open(io.BytesIO(data)).format == "EPS"
    with pytest.raises(InputError, match="unknown format"):
        open_image(data)
    assert calls == []


@pytest.mark.parametrize("form", ["GIF", "BMP", "TIFF", "JPEG2000", "AVIF", "PPM"])
def test_queries_have_fewer_formats_than_photos(form: str) -> None:
    data = encode(random_image(), form)
    assert open_image(data, formats=PHOTO_FORMATS).size == (40, 40)
    with pytest.raises(InputError, match="unknown format"):
        open_image(data, formats=QUERY_FORMATS)


def test_transparency_becomes_white() -> None:
    assert np.asarray(open_image(png((0, 0, 0, 0), mode="RGBA"))).min() == 255
    half_transparent = np.asarray(open_image(png((0, 0, 0, 128), mode="RGBA")))
    assert half_transparent[0, 0].tolist() == pytest.approx([127] * 3, abs=1)
    indexed = Image.new("P", (4, 4), 1)
    indexed.putpalette([9, 9, 9, 7, 7, 7])
    assert np.asarray(open_image(encode(indexed, transparency=1))).min() == 255


def test_16_bit_greyscale_is_scaled_to_8_bit() -> None:
    image = Image.fromarray(np.array([[0, 0x8000, 0xFFFF]], dtype=np.uint16))
    assert np.asarray(open_image(encode(image)))[0, :, 0].tolist() == [0, 128, 255]


def test_the_exif_orientation_is_applied() -> None:
    image = random_image((30, 20))
    exif = Image.Exif()
    exif[0x0112] = 6  # rotate by 90 degrees clockwise
    rotated = open_image(encode(image, exif=exif))
    np.testing.assert_array_equal(np.asarray(rotated), np.rot90(np.asarray(image), -1))


@pytest.mark.parametrize("size", [16, 40, 63])
def test_pixels_have_the_requested_size_and_channels(size: int) -> None:
    photo = decode_photo(encode(random_image((50, 31))), size)
    sketch = decode_sketch(encode(random_image()), size)
    assert (photo.shape, photo.dtype) == ((3, size, size), np.uint8)
    assert (sketch.shape, sketch.dtype) == ((1, size, size), np.uint8)


def test_an_image_of_the_requested_size_is_unchanged() -> None:
    image = random_image()
    np.testing.assert_array_equal(decode_photo(encode(image), 40), np.asarray(image).transpose(2, 0, 1))


def test_a_rectangular_image_is_padded_with_white() -> None:
    pixels = decode_photo(png(0, size=(40, 20)), 40)
    assert (pixels[:, :9].min(), pixels[:, 11:29].max(), pixels[:, 31:].min()) == (255, 0, 255)


def test_a_stretched_image_fills_the_square() -> None:
    image = random_image((50, 31))
    expected = np.asarray(image.resize((40, 40), Image.Resampling.BICUBIC)).transpose(2, 0, 1)
    np.testing.assert_array_equal(decode_photo(encode(image), 40, resize="stretch"), expected)
    np.testing.assert_array_equal(resize_photo(image, 40, "stretch"), expected)
    drawing = Image.new("L", (50, 31), 255)
    drawing.paste(0, (10, 5, 14, 25))
    square = read_sketch(encode(drawing)).resize((40, 40), Image.Resampling.BICUBIC)
    for decode in (decode_sketch, decode_query_sketch):
        np.testing.assert_array_equal(decode(encode(drawing), 40, resize="stretch"), np.asarray(square)[None])
    moved = decode_photo(encode(image), 40, Geometry(flip=True), "stretch")
    np.testing.assert_allclose(moved.astype(int), expected[..., ::-1], atol=1)


@pytest.mark.parametrize("size", [(1, 20_000), (20_000, 1), (3, 5_000)])
def test_a_very_thin_image_is_one_line(size: tuple[int, int]) -> None:
    pixels = decode_photo(png(0, size=size), 32)
    line = pixels[0] if size[0] < size[1] else pixels[0].T
    assert (line.min(axis=0) == 0).sum() == 1
    assert (line == 0).sum() == 32


@given(width=st.integers(1, 60), height=st.integers(1, 60), size=st.integers(1, 40))
def test_resizing_equals_pillow_where_no_side_vanishes(width: int, height: int, size: int) -> None:
    image = random_image((width, height), seed=width)
    assume(min(width, height) / max(width, height) * size > 0.5)
    expected = ImageOps.pad(image, (size, size), Image.Resampling.BICUBIC, color=(255, 255, 255))
    np.testing.assert_array_equal(resize_photo(image, size), np.asarray(expected).transpose(2, 0, 1))


def test_flip_mirrors_left_and_right() -> None:
    data = encode(random_image())
    moved = decode_sketch(data, 40, Geometry(flip=True))
    np.testing.assert_allclose(moved.astype(int), decode_sketch(data, 40)[..., ::-1], atol=1)


def test_the_default_geometry_is_the_identity() -> None:
    data = encode(random_image())
    np.testing.assert_allclose(decode_photo(data, 40, Geometry()).astype(int), decode_photo(data, 40), atol=1)


def centre_of_ink(pixels: np.ndarray) -> tuple[float, float]:
    """Mean x, y of the ink."""
    ink = 255.0 - pixels[0]
    y, x = np.mgrid[: ink.shape[0], : ink.shape[1]]
    return float((ink * x).sum() / ink.sum()), float((ink * y).sum() / ink.sum())


def dot(x: int, y: int, side: int = 60) -> bytes:
    pixels = np.full((side, side), 255, np.uint8)
    pixels[y - 2 : y + 3, x - 2 : x + 3] = 0
    return encode(Image.fromarray(pixels))


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
def test_geometry_moves_a_dot(geometry: Geometry, expected: tuple[float, float]) -> None:
    centre = centre_of_ink(decode_sketch(dot(40, 30), 60, geometry))
    assert centre == pytest.approx(expected, abs=1)


def test_the_area_outside_the_image_is_white() -> None:
    pixels = decode_photo(png(0, size=(40, 40)), 40, Geometry(shift=(0.5, 0)))
    assert pixels[:, :, :19].min() == 255
    assert pixels[:, :, 21:].max() == 0


def test_strokes_are_drawn_at_their_coordinates() -> None:
    image = np.asarray(render_strokes([[(0, 0.5), (1, 0.5)], [(0.25, 0.1)]], size=101, width=3))
    assert (image[50] == 0).all()
    assert (image[10, 25], image[80].min()) == (0, 255)
    np.testing.assert_array_equal(
        np.asarray(Image.open(io.BytesIO(encode_png(Image.fromarray(image))))), image
    )


@functools.cache
def camera_photo(width: int = 1600, height: int = 1200) -> Image.Image:
    """Blurred noise over shapes: edges and texture, as in a photo."""
    levels = np.random.default_rng(0).integers(0, 256, (height // 4, width // 4), dtype=np.uint8)
    noise = Image.fromarray(levels).resize((width, height), Image.Resampling.BICUBIC)
    image = Image.merge("RGB", (noise, noise.point(lambda level: 255 - level), noise))
    ImageDraw.Draw(image).ellipse((width // 4, height // 4, width // 2, height // 2), fill=(220, 30, 60))
    return image


def rotated() -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = 6
    return exif


@pytest.mark.parametrize(
    ("mode", "options"),
    [
        *(("RGB", {}), ("RGB", {"progressive": True}), ("RGB", {"exif": rotated()})),
        *(("CMYK", {}), ("L", {})),
    ],
    ids=["RGB", "progressive", "rotated", "CMYK", "grey"],
)
@pytest.mark.parametrize("resize", ["pad", "stretch"])
def test_a_large_jpeg_is_decoded_at_a_fraction_with_almost_the_same_pixels(
    mode: str, options: dict[str, object], resize: Resize
) -> None:
    data = encode(camera_photo().convert(mode), "JPEG", quality=90, **options)
    full, fraction = open_image(data), open_image(data, side=96)
    assert fraction.size == tuple(-(-side // 2) for side in full.size)  # 384 pixels are enough
    difference = np.abs(resize_photo(full, 96, resize).astype(int) - resize_photo(fraction, 96, resize))
    assert difference.mean() < 0.5
    assert difference.max() < 10


@pytest.mark.parametrize(
    ("size", "side", "expected"),
    [
        ((400, 300), 96, 1),
        ((1535, 767), 96, 1),
        ((4000, 3000), 96, 4),
        ((1600, 1200), 224, 2),
        ((1600, 1200), 500, 1),
        ((6000, 40), 32, 1),
    ],
)
def test_the_shorter_side_stays_twice_as_long_as_needed(
    size: tuple[int, int], side: int, expected: int
) -> None:
    data = encode(Image.new("RGB", size, (90, 140, 20)), "JPEG")
    assert open_image(data, side=side).size == tuple(-(-each // expected) for each in size)


def test_a_small_jpeg_and_other_formats_are_decoded_as_without_a_side() -> None:
    small, large = camera_photo(400, 300), camera_photo()
    for data in (encode(small, "JPEG"), encode(large, "PNG"), encode(large, "WEBP", method=0)):
        np.testing.assert_array_equal(np.asarray(open_image(data, side=64)), np.asarray(open_image(data)))


def test_limits_and_damage_of_a_large_jpeg_are_found_at_a_fraction_too() -> None:
    data = encode(camera_photo(), "JPEG")
    with pytest.raises(ImageTooLargeError, match=r"1600 x 1200 exceeds"):
        open_image(data, max_pixels=1_000_000, side=32)
    with pytest.raises(InputError, match="not a readable image"):
        open_image(data[: len(data) // 2], side=32)
