"""Every image mode of Pillow is converted to 8-bit sRGB, or refused."""

import io

import numpy as np
import pytest
from PIL import Image, ImageCms

from stbir.color import to_srgb
from stbir.errors import InputError
from stbir.images import decode_photo, open_image

REFUSED = {"I", "F"}
COLOR = (200, 100, 50)
GREY = round(sum(w * c for w, c in zip((0.299, 0.587, 0.114), COLOR, strict=True)))


def encode(image: Image.Image, form: str, **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, form, **options)
    return file.getvalue()


def in_mode(mode: str) -> Image.Image:
    """COLOR, or its grey level, as an image of a mode."""
    rgb = Image.new("RGB", (4, 4), COLOR)
    if mode.startswith("I;16"):
        return Image.new(mode, (4, 4), GREY * 257)
    if mode == "La":
        return rgb.convert("LA").convert("La")
    if mode == "RGBa":
        return rgb.convert("RGBA").convert("RGBa")
    if mode == "PA":
        return rgb.convert("P").convert("PA")
    if mode == "LAB":
        return ImageCms.profileToProfile(
            rgb, ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB"), outputMode="LAB"
        )
    return rgb.convert(mode)


@pytest.mark.parametrize("mode", sorted(set(Image.MODES) - REFUSED))
def test_each_mode_keeps_its_color(mode: str) -> None:
    converted = to_srgb(in_mode(mode))
    assert converted.mode in ("RGB", "RGBA")
    is_grey = in_mode(mode).getbands()[0] in ("L", "I") and mode != "LAB"
    expected = {"1": None}.get(mode, (GREY,) * 3 if is_grey else COLOR)
    pixel = np.asarray(converted.convert("RGB"))[1, 1]
    if expected is None:
        assert set(np.unique(np.asarray(converted))) <= {0, 255}
    else:
        # A palette of 216 colours is up to 26 levels off.
        np.testing.assert_allclose(pixel, expected, atol=26 if "P" in mode else 2)


@pytest.mark.parametrize("mode", sorted(REFUSED))
def test_32_bits_a_channel_are_refused(mode: str) -> None:
    data = encode(Image.new("F", (4, 4), 0.5).convert(mode), "TIFF")
    with pytest.raises(InputError, match=r"photo: not a readable image .*32 bits a channel"):
        open_image(data, "photo")


@pytest.mark.parametrize("mode", ["I;16", "I;16B", "I;16L", "I;16N"])
def test_16_bits_are_scaled(mode: str) -> None:
    levels = np.array([[0, 0x8000, 0xFFFF]], np.uint16)
    image = Image.new(mode, (3, 1))
    for x in range(3):
        image.putpixel((x, 0), int(levels[0, x]))
    assert np.asarray(to_srgb(image))[0, :, 1].tolist() == [0, 128, 255]


def test_a_pgm_of_16_bits_is_scaled() -> None:
    data = b"P5 3 1 65535\n" + np.array([0, 0x8000, 0xFFFF], ">u2").tobytes()
    assert np.asarray(open_image(data))[0, :, 0].tolist() == [0, 128, 255]


def test_16_bits_with_a_transparent_level_are_scaled() -> None:
    data = encode(Image.fromarray(np.array([[0, 1, 0x8000, 0xC000]], np.uint16)), "PNG", transparency=0)
    # Level 0 is transparent and shows white paper; level 1 is black.
    assert np.asarray(open_image(data))[0, :, 0].tolist() == [255, 0, 128, 192]


@pytest.mark.parametrize("mode", ["LA", "PA", "RGBA", "RGBa", "La"])
def test_transparency_becomes_an_alpha_channel(mode: str) -> None:
    clear = Image.new("RGBA", (4, 4), (9, 9, 9, 0))
    image = {"La": lambda: clear.convert("LA").convert("La"), "PA": lambda: Image.new("PA", (4, 4), (0, 0))}
    converted = to_srgb(image.get(mode, lambda: clear.convert(mode))())
    assert converted.mode == "RGBA"
    assert np.asarray(converted)[..., 3].max() == 0


def linear_profile() -> bytes:
    """The ICC profile of sRGB's primaries with a linear tone curve: sRGB with its three curves replaced."""
    profile = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    count = int.from_bytes(profile[128:132], "big")
    for tag in range(132, 132 + 12 * count, 12):
        if profile[tag : tag + 4] in (b"rTRC", b"gTRC", b"bTRC"):
            offset = int.from_bytes(profile[tag + 4 : tag + 8], "big")
            # A "curv" of no entries is the identity.
            profile[offset : offset + 12] = b"curv" + bytes(8)
            profile[tag + 8 : tag + 12] = (12).to_bytes(4, "big")
        if profile[tag : tag + 4] == b"desc":
            offset, size = (int.from_bytes(profile[tag + n : tag + n + 4], "big") for n in (4, 8))
            text = bytes(profile[offset : offset + size]).replace("sRGB".encode("utf-16-be"), b"\0L\0i\0n\0r")
            profile[offset : offset + size] = text
    return bytes(profile)


@pytest.mark.parametrize("form", ["PNG", "JPEG", "WEBP", "TIFF"])
def test_an_icc_profile_is_converted(form: str) -> None:
    data = encode(Image.new("RGB", (16, 16), (55, 55, 55)), form, icc_profile=linear_profile())
    # sRGB encodes the linear 55 / 255 as 0.50.
    assert np.asarray(open_image(data))[8, 8].tolist() == pytest.approx([128] * 3, abs=2)


def test_transparency_outlives_the_conversion_of_a_profile() -> None:
    image = Image.new("RGBA", (4, 4), (55, 55, 55, 255))
    image.putpixel((0, 0), (55, 55, 55, 0))
    pixels = np.asarray(open_image(encode(image, "PNG", icc_profile=linear_profile())))
    assert (pixels[0, 0, 0], pixels[2, 2, 0]) == (255, pytest.approx(128, abs=2))


def srgb() -> bytes:
    return ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


@pytest.mark.parametrize(
    ("mode", "profile"),
    [
        ("RGB", b"not a profile"),
        ("RGB", linear_profile()[:200]),
        ("L", linear_profile()),  # describes RGB
        ("RGB", srgb()),
    ],
    ids=["garbage", "truncated", "of another colour space", "sRGB itself"],
)
def test_a_profile_that_cannot_be_used_leaves_the_pixels(mode: str, profile: bytes) -> None:
    rng = np.random.default_rng(0)
    image = Image.fromarray(rng.integers(0, 256, (8, 8, 3), np.uint8)).convert(mode)
    plain, tagged = encode(image, "PNG"), encode(image, "PNG", icc_profile=profile)
    np.testing.assert_array_equal(np.asarray(open_image(tagged)), np.asarray(open_image(plain)))


def test_cmyk_keeps_its_color() -> None:
    data = encode(Image.new("RGB", (32, 32), COLOR).convert("CMYK"), "JPEG")
    np.testing.assert_allclose(decode_photo(data, 32)[:, 8, 8], COLOR, atol=6)
