"""Every form of the same image gives the same features; anything else is refused in one line."""

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from stbir.api.inputs import as_texts, photo_files, sketch_files
from stbir.api.model import Model
from stbir.errors import InputError, NoStrokeError
from stbir.images import decode_photo, encode_png, render_strokes
from stbir.storage.folder import Folder
from tests.data.image_files import drawing, png

STROKES = [[(0.1, 0.2), (0.8, 0.9)], [(0.5, 0.1), (0.5, 0.9), (0.2, 0.4)]]


def gradient(mode: str) -> Image.Image:
    pixels = np.arange(24 * 16 * 3, dtype=np.int64).reshape(24, 16, 3) % 256
    image = Image.fromarray(pixels.astype(np.uint8)).convert("RGBA" if mode == "PA" else mode)
    if image.mode in ("RGBA", "LA"):
        image.putalpha(128)
    return image


@pytest.mark.parametrize("mode", ["1", "L", "LA", "RGB", "RGBA", "P", "CMYK", "YCbCr"])
def test_a_pil_image_gives_the_pixels_of_its_file(mode: str) -> None:
    image, buffer = gradient(mode), io.BytesIO()
    image.save(buffer, "TIFF" if mode in ("CMYK", "YCbCr") else "PNG")
    [from_image] = photo_files(image)
    np.testing.assert_array_equal(decode_photo(from_image, 32), decode_photo(buffer.getvalue(), 32))


def test_a_pil_image_in_a_mode_without_a_file_format() -> None:
    [data] = photo_files(gradient("RGB").convert("HSV"))
    expected = decode_photo(encode_png(gradient("RGB").convert("HSV").convert("RGB")), 16)
    np.testing.assert_array_equal(decode_photo(data, 16), expected)


def test_the_orientation_of_a_pil_image_is_applied(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # rotated by 90 degrees
    gradient("RGB").save(tmp_path / "turned.png", exif=exif)
    with Image.open(tmp_path / "turned.png") as image:
        [data] = photo_files(image)
    expected = decode_photo((tmp_path / "turned.png").read_bytes(), 32)
    np.testing.assert_array_equal(decode_photo(data, 32), expected)


def test_path_uri_bytes_and_array_of_a_photo_give_equal_features(model: Model, tmp_path: Path) -> None:
    image = gradient("RGB")
    data = encode_png(image)
    (tmp_path / "x.png").write_bytes(data)
    Folder("memory://inputs").write("x.png", data)
    forms = [tmp_path / "x.png", str(tmp_path / "x.png"), "memory://inputs/x.png", data, image]
    features = model.encode_photo([*forms, np.asarray(image)])
    assert features.shape == (6, model.dim)
    assert features.dtype == np.float32
    np.testing.assert_allclose(features, np.tile(features[:1], (6, 1)), atol=1e-6)
    np.testing.assert_allclose(model.encode_photo(image), features[:1], atol=1e-6)
    np.testing.assert_allclose(np.linalg.norm(features, axis=1), 1, atol=1e-5)


def test_strokes_are_a_sketch_in_every_nesting(model: Model) -> None:
    image = render_strokes(STROKES)
    arrays = [np.array(stroke) for stroke in STROKES]
    one = model.encode_sketch(image)
    for form in (STROKES, arrays, tuple(STROKES), [image], np.asarray(image)):
        np.testing.assert_allclose(model.encode_sketch(form), one, atol=1e-6)
    several = model.encode_sketch([STROKES, image, arrays])
    np.testing.assert_allclose(several, np.tile(one, (3, 1)), atol=1e-6)


def test_an_array_of_many_images_is_many() -> None:
    assert len(photo_files(np.zeros((5, 4, 3, 3), np.uint8))) == 5
    assert len(photo_files(np.zeros((4, 3, 1), np.uint8))) == 1
    assert photo_files([]) == []
    assert sketch_files([]) == []


@pytest.mark.parametrize(
    ("photo", "message"),
    [
        (3, "photo: int is no image; give a path, bytes, a PIL image or a uint8 array$"),
        (np.zeros((4, 4)), r"photo: array of float64 and shape \(4, 4\); give uint8"),
        (np.zeros((4, 4, 2), np.uint8), r"shape \(4, 4, 2\); give uint8"),
        (np.zeros((0, 4), np.uint8), r"shape \(0, 4\); give uint8"),
        ("nowhere/x.png", "nowhere/x.png"),
        (b"text", "photo: not a readable image"),
    ],
)
def test_other_photos_are_refused(model: Model, photo: object, message: str) -> None:
    with pytest.raises(InputError, match=message):
        model.encode_photo(photo)  # type: ignore[arg-type]


def test_other_sketches_are_refused(model: Model) -> None:
    with pytest.raises(InputError, match="sketch: strokes have points outside 0 … 1; divide them"):
        model.encode_sketch([[(0, 0), (255, 30)]])
    with pytest.raises(InputError, match=r"sketch: float is no image; .*, or strokes"):
        model.encode_sketch([0.5])  # type: ignore[list-item]
    with pytest.raises(NoStrokeError, match="no stroke on it"):
        model.encode_sketch(png(255))


def test_texts_are_one_or_many(model: Model) -> None:
    assert as_texts("red") == ["red"]
    both = model.encode_text(["red seat", "blue"])
    np.testing.assert_allclose(model.encode_text("blue"), both[1:], atol=1e-6)
    with pytest.raises(InputError, match="text: int is no text; give a string"):
        model.encode_text(["red", 3])  # type: ignore[list-item]


def test_a_drawing_in_any_format_is_a_sketch(model: Model) -> None:
    buffer = io.BytesIO()
    drawing().save(buffer, "BMP")
    np.testing.assert_allclose(
        model.encode_sketch(buffer.getvalue()), model.encode_sketch(drawing()), atol=1e-6
    )
