"""The prompt for captions and the chat messages. Its version changes with every change of the request."""

import hashlib
import json
from dataclasses import dataclass
from importlib import resources
from typing import Any

from stbir.captioning.caption import MAX_WORD_COUNT, caption_schema
from stbir.errors import InputError
from stbir.storage.folder import read_uri

DEFAULT_PROMPT = "v1"
MAX_SIDE = 512  # pixels of an image's longer side: token count and price grow with the area


@dataclass(frozen=True)
class Prompt:
    """The system prompt, and the limits of a caption's words and of an image's longer side in pixels."""

    name: str
    text: str
    max_word_count: int
    max_side: int

    @property
    def version(self) -> str:
        """The name and a digest of everything that an answer depends on, except the model and the photo."""
        content = json.dumps([self.text, self.max_word_count, self.max_side, caption_schema()])
        return f"{self.name}-{hashlib.sha256(content.encode()).hexdigest()[:8]}"


def load_prompt(
    uri: str | None = None, max_word_count: int = MAX_WORD_COUNT, max_side: int = MAX_SIDE
) -> Prompt:
    """Load a prompt file, by default the packaged one, and replace `{words}` by `max_word_count`.

    Raises InputError for a missing file, one that is not UTF-8, and limits that are too low.
    """
    for field, value, minimum in (("--words", max_word_count, 3), ("--pixels", max_side, 56)):
        if value < minimum:
            raise InputError(f"{field}: {value} is less than {minimum}; give {minimum} or more")
    name = DEFAULT_PROMPT if uri is None else uri.rpartition("/")[2].removesuffix(".txt")
    text = _read(uri).strip().replace("{words}", str(max_word_count))
    return Prompt(name, text, max_word_count, max_side)


def _read(uri: str | None) -> str:
    if uri is None:
        file = resources.files("stbir.captioning") / "prompts" / f"{DEFAULT_PROMPT}.txt"
        return file.read_text(encoding="utf-8")
    try:
        return read_uri(uri).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"{uri}: not UTF-8 ({error}); save it as UTF-8") from error


def chat_messages(prompt: Prompt, image_uri: str) -> list[dict[str, Any]]:
    """Return the chat-completion messages for an image, a data URI.

    The text that all requests share comes first, so that a server can cache its prefix.
    """
    image = {"type": "image_url", "image_url": {"url": image_uri}}
    content = [image, {"type": "text", "text": "This product."}]
    return [{"role": "system", "content": prompt.text}, {"role": "user", "content": content}]


def retry_messages(messages: list[dict[str, Any]], answer: str, problem: str) -> list[dict[str, Any]]:
    """Return the messages that follow an invalid answer."""
    text = f"That answer cannot be used: {problem}. Answer again with the one JSON object and nothing else."
    return [
        *messages,
        {"role": "assistant", "content": answer or "(nothing)"},
        {"role": "user", "content": text},
    ]
