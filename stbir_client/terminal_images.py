"""Images in the terminal: the escape sequences of kitty and iTerm2."""

import base64
import io
from collections.abc import Callable, Mapping

from stbir_client.errors import InputError

Renderer = Callable[[bytes], str]
HEIGHT = 5  # of an image, in rows of text
CHUNK_SIZE = 4096  # maximum base64 characters per kitty sequence
_PNG = b"\x89PNG"


def select_renderer(environment: Mapping[str, str]) -> Renderer | None:
    """The renderer for the terminal of these environment variables; None if it cannot show images."""
    term, program = environment.get("TERM", ""), environment.get("TERM_PROGRAM", "")
    if "TMUX" in environment or term.startswith(("screen", "tmux", "dumb")):
        return None  # multiplexers drop the sequences
    if "KITTY_WINDOW_ID" in environment or term in ("xterm-kitty", "xterm-ghostty"):
        return render_kitty
    if program in ("iTerm.app", "WezTerm") or environment.get("LC_TERMINAL") == "iTerm2":
        return render_iterm
    return None


def render_kitty(data: bytes) -> str:
    """Transmit and display (a=T), no reply (q=2): https://sw.kovidgoyal.net/kitty/graphics-protocol/."""
    text = base64.b64encode(_png(data)).decode()
    chunks = [text[start : start + CHUNK_SIZE] for start in range(0, len(text), CHUNK_SIZE)]
    header = f"a=T,f=100,r={HEIGHT},q=2,"
    return "".join(
        f"\x1b_G{'' if n else header}m={int(n < len(chunks) - 1)};{chunk}\x1b\\"
        for n, chunk in enumerate(chunks)
    )


def render_iterm(data: bytes) -> str:
    """PNG or JPEG, unchanged: https://iterm2.com/documentation-images.html."""
    text = base64.b64encode(data).decode()
    return f"\x1b]1337;File=inline=1;size={len(data)};height={HEIGHT};preserveAspectRatio=1:{text}\x07"


def _png(data: bytes) -> bytes:
    """The image as PNG, the only format of kitty."""
    if data.startswith(_PNG):
        return data
    try:
        from PIL import Image
    except ImportError as error:
        message = "this terminal shows only PNG; run pip install 'stbir-client[thumbnails]' to convert JPEG"
        raise InputError(message) from error
    try:
        with Image.open(io.BytesIO(data), formats=("JPEG",)) as image:
            encoded = io.BytesIO()
            image.save(encoded, "PNG")
    except (OSError, ValueError, Image.DecompressionBombError) as error:
        raise InputError(f"a thumbnail cannot be decoded ({error})") from error
    return encoded.getvalue()
