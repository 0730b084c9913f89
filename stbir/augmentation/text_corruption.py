"""Corruptions of captions: missing words, a wrong colour, the item only, typing errors.

Each takes a caption of the form `colour material item, detail[, detail]`, a severity in (0, 1] and an rng.
The draws from the rng do not depend on the severity.
"""

import re
from collections.abc import Callable
from typing import Literal

import numpy as np

from stbir.augmentation.curriculum_noise import apply_word_dropout

TextCorruption = Literal["dropped words", "wrong colour", "only the item", "typos"]
WORD_DROPOUT = 0.75  # probability at severity 1

# The basic colour terms (Berlin and Kay, 1969), and the shades of each.
COLOURS = ("black", "white", "red", "green", "yellow", "blue", "brown", "orange", "pink", "purple", "gray")
_SHADES = {
    "black": ("charcoal", "ebony"),
    "white": ("cream", "ivory"),
    "red": ("burgundy", "crimson", "maroon", "scarlet"),
    "green": ("khaki", "lime", "mint", "olive"),
    "yellow": ("gold", "golden", "mustard"),
    "blue": ("aqua", "cyan", "indigo", "navy", "teal", "turquoise"),
    "brown": ("beige", "bronze", "chocolate", "cognac", "copper", "nude", "tan", "taupe"),
    "orange": ("coral", "peach", "rust"),
    "pink": ("blush", "fuchsia", "magenta", "rose"),
    "purple": ("lavender", "lilac", "mauve", "plum", "violet"),
    "gray": ("grey", "pewter", "silver"),
}
BASIC_COLOUR = {shade: colour for colour, shades in _SHADES.items() for shade in (colour, *shades)}
# Where a clause ends: a comma or a preposition, so that "cat on a chair" is about the cat.
CLAUSE_END = re.compile(r"(?=,)|(?=\s(?:at|behind|by|from|in|near|of|on|over|under|with)\s)")


def _drop_tokens(text: str, severity: float, rng: np.random.Generator) -> str:
    return apply_word_dropout(text, WORD_DROPOUT * severity, rng)


def _change_colour(text: str, severity: float, rng: np.random.Generator) -> str:
    """Replace each colour word by another basic colour, with probability `severity`."""

    def replace(match: re.Match[str]) -> str:
        current = BASIC_COLOUR.get(match[0].lower())
        if current is None:
            return match[0]
        draw, index = rng.random(), rng.integers(len(COLOURS) - 1)
        return [colour for colour in COLOURS if colour != current][index] if draw < severity else match[0]

    return re.sub(r"[a-zA-Z]+", replace, text)


def _keep_item(text: str, severity: float, rng: np.random.Generator) -> str:
    """Remove the details, last one first, then the words before the item, first one first.

    The item is the last word of the first clause.
    """
    clause, *details = CLAUSE_END.split(text)
    tokens = clause.split()
    if not tokens:
        return text
    removed_count = round(severity * (len(details) + len(tokens) - 1))
    start = max(0, removed_count - len(details))
    return " ".join(tokens[start:]) + "".join(details[: max(0, len(details) - removed_count)])


def _add_typos(text: str, severity: float, rng: np.random.Generator) -> str:
    """Put one typing error into each word of two or more letters, with probability `severity`."""

    def replace(match: re.Match[str]) -> str:
        draw, typo = rng.random(), _mistype(match[0], rng)
        return typo if draw < severity else match[0]

    return re.sub(r"[^\W\d_]{2,}", replace, text)


def _mistype(word: str, rng: np.random.Generator) -> str:
    """Double or drop one letter, or swap it with the next one; of two equal letters, one is dropped."""
    i = int(rng.integers(len(word) - 1))
    left, right = word[i], word[i + 1]
    swapped = right + left if left != right else left
    typo = (left + left + right, right, swapped)[rng.integers(3)]
    return word[:i] + typo + word[i + 2 :]


TEXT_CORRUPTIONS: dict[TextCorruption, Callable[[str, float, np.random.Generator], str]] = {
    "dropped words": _drop_tokens,
    "wrong colour": _change_colour,
    "only the item": _keep_item,
    "typos": _add_typos,
}
