"""What a model is asked of a photo. Its version changes with every word: no answer passes for another's."""

import hashlib
import json
from dataclasses import dataclass
from importlib import resources
from typing import Any

from stbir.captioning.caption import MOST_WORDS, schema
from stbir.errors import InputError
from stbir.storage.folder import read_uri

DEFAULT = "v1"
PIXELS = 512  # the longer side of what is sent: a model's tokens, and its price, grow with the area


@dataclass(frozen=True)
class Prompt:
    """`text` stands before the picture; `pixels` bounds the picture's longer side, `words` a caption."""

    name: str
    text: str
    words: int
    pixels: int

    @property
    def version(self) -> str:
        """The name, and a digest of all that an answer hangs on but the model and the photo."""
        asked = json.dumps([self.text, self.words, self.pixels, schema()])
        return f"{self.name}-{hashlib.sha256(asked.encode()).hexdigest()[:8]}"


def load_prompt(uri: str | None = None, words: int = MOST_WORDS, pixels: int = PIXELS) -> Prompt:
    """The prompt in a file, by default the one that comes along; `{words}` in it becomes the bound.

    Raises InputError for a file that is not there or not UTF-8, and bounds below what makes sense.
    """
    for field, value, least in (("words", words, 3), ("pixels", pixels, 56)):
        if value < least:
            raise InputError(f"{field}: {value} is too few; give {least} or more")
    name = DEFAULT if uri is None else uri.rpartition("/")[2].removesuffix(".txt")
    return Prompt(name, _text(uri).strip().replace("{words}", str(words)), words, pixels)


def _text(uri: str | None) -> str:
    if uri is None:
        here = resources.files("stbir.captioning") / "prompts" / f"{DEFAULT}.txt"
        return here.read_text(encoding="utf-8")
    try:
        return read_uri(uri).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"{uri}: not UTF-8 ({error}); save it as UTF-8") from error


def messages(prompt: Prompt, picture: str) -> list[dict[str, Any]]:
    """What is asked of a picture, a data URI, in the form of chat completions.

    The words that all pictures share come first: a server then computes them once.
    """
    shown = [{"type": "image_url", "image_url": {"url": picture}}, {"type": "text", "text": "This product."}]
    return [{"role": "system", "content": prompt.text}, {"role": "user", "content": shown}]


def again(asked: list[dict[str, Any]], answer: str, why: str) -> list[dict[str, Any]]:
    """What is asked after an answer that cannot be used."""
    remedy = f"That answer cannot be used: {why}. Answer again with the one JSON object and nothing else."
    return [
        *asked,
        {"role": "assistant", "content": answer or "(nothing)"},
        {"role": "user", "content": remedy},
    ]
