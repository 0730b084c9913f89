"""Conversion of every image mode of Pillow to 8-bit sRGB."""

import io

import numpy as np
from PIL import Image, ImageCms

# The mode of Pillow for each colour space of an ICC profile.
_PROFILE_MODES = {"RGB ": "RGB", "GRAY": "L", "CMYK": "CMYK", "Lab ": "LAB"}
_GREY_MODES = ("1", "L", "LA", "La")


def to_srgb(image: Image.Image) -> Image.Image:
    """Convert an image of any mode to "RGB", or to "RGBA" if it has transparency.

    Its ICC profile is converted to sRGB. A profile that is damaged, or that describes another colour space
    than that of the pixels, is ignored: sRGB is assumed. Raises ValueError for 32 bits a channel.
    """
    color, alpha = _split(_to_8_bit(image))
    rgb = _apply_profile(color, image.info.get("icc_profile"))
    if alpha is not None:
        rgb.putalpha(alpha)
    return rgb


def _to_8_bit(image: Image.Image) -> Image.Image:
    """Scale 16-bit greyscale to "L", or to "LA" if one level is transparent. Pillow clips it to white."""
    # Pillow scales a PGM of 16 bits to 0 … 65535 in mode "I"; other files in "I" and "F" define no white.
    is_16_bit_pgm = image.mode == "I" and image.format == "PPM"
    if image.mode in ("I", "F") and not is_16_bit_pgm:
        raise ValueError(f"32 bits a channel, mode {image.mode}, define no white; save it with 8 or 16 bits")
    if not (image.mode.startswith("I;16") or is_16_bit_pgm):
        return image
    levels = np.asarray(image)
    grey = Image.fromarray((levels >> 8).astype(np.uint8))
    if (transparent := image.info.get("transparency")) is not None:
        grey.putalpha(Image.fromarray(np.where(levels == transparent, 0, 255).astype(np.uint8)))
    return grey


def _split(image: Image.Image) -> tuple[Image.Image, Image.Image | None]:
    """The colours, in mode L, RGB, CMYK or LAB, and the alpha channel, if any."""
    if image.has_transparency_data:
        # Pillow converts a premultiplied "La" to "LA" only.
        rgba = (image.convert("LA") if image.mode == "La" else image).convert("RGBA")
        return rgba.convert("L" if image.mode in _GREY_MODES else "RGB"), rgba.getchannel("A")
    if image.mode in ("CMYK", "LAB"):
        return image, None
    return image.convert("L" if image.mode in _GREY_MODES else "RGB"), None


def _apply_profile(image: Image.Image, profile: bytes | None) -> Image.Image:
    if not profile:
        return image.convert("RGB")
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        if _PROFILE_MODES.get(source.profile.xcolor_space) != image.mode or _is_srgb(source):
            return image.convert("RGB")
        target = ImageCms.createProfile("sRGB")
        converted = ImageCms.profileToProfile(image, source, target, outputMode="RGB")
    except (ImageCms.PyCMSError, OSError):  # a damaged profile
        return image.convert("RGB")
    assert converted is not None
    return converted


def _is_srgb(profile: ImageCms.ImageCmsProfile) -> bool:
    """Whether the profile is sRGB by its name: converting would only add rounding errors."""
    return "sRGB" in ImageCms.getProfileDescription(profile)
