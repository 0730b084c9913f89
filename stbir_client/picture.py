"""Pictures in a terminal that can show them: the escape sequences of kitty and of iTerm2."""

import base64
import io
from collections.abc import Callable, Mapping

from stbir_client.errors import InputError

Draw = Callable[[bytes], str]
ROWS = 5  # of text, that a picture is high
CHUNK = 4096  # characters of base64 in one sequence of kitty
_PNG = b"\x89PNG"


def drawer(environment: Mapping[str, str]) -> Draw | None:
    """How to draw in the terminal that these variables describe, None where it shows text alone."""
    term, program = environment.get("TERM", ""), environment.get("TERM_PROGRAM", "")
    if "TMUX" in environment or term.startswith(("screen", "tmux", "dumb")):
        return None  # a multiplexer stands between and swallows the sequences
    if "KITTY_WINDOW_ID" in environment or term in ("xterm-kitty", "xterm-ghostty"):
        return kitty
    if program in ("iTerm.app", "WezTerm") or environment.get("LC_TERMINAL") == "iTerm2":
        return iterm
    return None


def kitty(data: bytes) -> str:
    """Transmit and show (a=T), answer nothing (q=2): https://sw.kovidgoyal.net/kitty/graphics-protocol/."""
    text = base64.b64encode(_png(data)).decode()
    chunks = [text[start : start + CHUNK] for start in range(0, len(text), CHUNK)]
    first = f"a=T,f=100,r={ROWS},q=2,"
    return "".join(
        f"\x1b_G{'' if place else first}m={int(place < len(chunks) - 1)};{chunk}\x1b\\"
        for place, chunk in enumerate(chunks)
    )


def iterm(data: bytes) -> str:
    """https://iterm2.com/documentation-images.html; PNG and JPEG as they are."""
    text = base64.b64encode(data).decode()
    return f"\x1b]1337;File=inline=1;size={len(data)};height={ROWS};preserveAspectRatio=1:{text}\x07"


def _png(data: bytes) -> bytes:
    """The picture as PNG, the only format kitty knows."""
    if data.startswith(_PNG):
        return data
    try:
        from PIL import Image
    except ImportError as error:
        raise InputError("this terminal shows PNG alone; pip install 'stbir-client[pictures]'") from error
    try:
        with Image.open(io.BytesIO(data), formats=("JPEG",)) as picture:
            encoded = io.BytesIO()
            picture.save(encoded, "PNG")
    except (OSError, ValueError, Image.DecompressionBombError) as error:
        raise InputError(f"a thumbnail cannot be read ({error})") from error
    return encoded.getvalue()
