"""What a poor caption looks like: words missing, a wrong colour, the item and nothing else, typing mistakes.

Each distortion takes a caption of the form `colour material item, detail[, detail]`, a severity in (0, 1] and
a generator. What is drawn from the generator does not hang on the severity.
"""

import re
from collections.abc import Callable
from typing import Literal

import numpy as np

from stbir.augmentation.curriculum_noise import drop_words

TextDistortion = Literal["dropped words", "wrong colour", "only the item", "typos"]
DROPPED_WORDS = 0.75  # share of the words at severity 1

# The basic colour terms (Berlin and Kay, 1969), and of other names the one each is a shade of.
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
SHADE_OF = {shade: colour for colour, shades in _SHADES.items() for shade in (colour, *shades)}
# Where the clause of the item ends: "cat on a chair" is about the cat.
CLAUSES = re.compile(r"(?=,)|(?=\s(?:at|behind|by|from|in|near|of|on|over|under|with)\s)")


def _drop_words(text: str, severity: float, rng: np.random.Generator) -> str:
    return drop_words(text, DROPPED_WORDS * severity, rng)


def _wrong_colour(text: str, severity: float, rng: np.random.Generator) -> str:
    """Each colour word becomes, with probability `severity`, another basic colour than its own."""

    def other(word: re.Match[str]) -> str:
        right = SHADE_OF.get(word[0].lower())
        if right is None:
            return word[0]
        dice, which = rng.random(), rng.integers(len(COLOURS) - 1)
        return [colour for colour in COLOURS if colour != right][which] if dice < severity else word[0]

    return re.sub(r"[a-zA-Z]+", other, text)


def _only_item(text: str, severity: float, rng: np.random.Generator) -> str:
    """Less and less is said: the details go, from the last, then what stands before the item, from the first.

    The item is the last word of the first clause, which ends at a comma or a preposition.
    """
    clause, *details = CLAUSES.split(text)
    words = clause.split()
    if not words:
        return text
    gone = round(severity * (len(details) + len(words) - 1))
    first = max(0, gone - len(details))
    return " ".join(words[first:]) + "".join(details[: max(0, len(details) - gone)])


def _typos(text: str, severity: float, rng: np.random.Generator) -> str:
    """Each word of two letters or more is mistyped once with probability `severity`."""

    def typed(word: re.Match[str]) -> str:
        dice, wrong = rng.random(), _mistyped(word[0], rng)
        return wrong if dice < severity else word[0]

    return re.sub(r"[^\W\d_]{2,}", typed, text)


def _mistyped(word: str, rng: np.random.Generator) -> str:
    """A letter doubled, missing, or changed with its neighbour; two that are equal are not changed."""
    i = int(rng.integers(len(word) - 1))
    first, second = word[i], word[i + 1]
    swapped = second + first if first != second else first
    wrong = (first + first + second, second, swapped)[rng.integers(3)]
    return word[:i] + wrong + word[i + 2 :]


TEXT_DISTORTIONS: dict[TextDistortion, Callable[[str, float, np.random.Generator], str]] = {
    "dropped words": _drop_words,
    "wrong colour": _wrong_colour,
    "only the item": _only_item,
    "typos": _typos,
}
