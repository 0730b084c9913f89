"""Agreement of new captions with reference captions: on colours, materials and the item."""

import re
from collections.abc import Callable, Iterable
from typing import TypedDict

from stbir.augmentation.text_corruption import BASIC_COLOUR, CLAUSE_END

# Material → words that name it.
_TERMS = {
    "canvas": ("canvas", "denim"),
    "ceramic": ("ceramic", "clay", "porcelain", "terracotta"),
    "cork": ("cork",),
    "fabric": (
        "cloth",
        "cotton",
        "fabric",
        "felt",
        "linen",
        "polyester",
        "textile",
        "tweed",
        "upholstered",
        "wool",
    ),
    "fur": ("fur", "furry", "shearling", "sheepskin"),
    "glass": ("glass",),
    "glitter": ("glitter", "sequin", "sequined"),
    "knit": ("knit", "knitted"),
    "leather": ("leather",),
    "mesh": ("mesh", "net"),
    "metal": ("aluminum", "brass", "chrome", "iron", "metal", "metallic", "steel"),
    "plastic": ("acrylic", "plastic", "polypropylene", "resin"),
    "rope": ("espadrille", "jute", "raffia", "rope", "straw"),
    "rubber": ("gum", "rubber"),
    "satin": ("satin", "silk"),
    "stone": ("concrete", "marble", "stone"),
    "suede": ("nubuck", "suede"),
    "velvet": ("velour", "velvet"),
    "wicker": ("cane", "rattan", "wicker"),
    "wood": ("bamboo", "beech", "oak", "pine", "plywood", "teak", "walnut", "wood", "wooden"),
}
_MATERIAL_OF = {term: material for material, terms in _TERMS.items() for term in terms}


class Agreement(TypedDict):
    """Percentages over the `photos` whose reference caption has a term; None if there is no such photo.

    agree: photos whose new caption shares a term. recall: reference terms that are in the new caption.
    precision: terms of the new caption that are in the reference.
    """

    photos: int
    agree: float | None
    recall: float | None
    precision: float | None


def measure_agreement(pairs: Iterable[tuple[str, str]]) -> dict[str, Agreement]:
    """Compare (reference, new) captions of the same photos."""
    pairs = list(pairs)
    return {
        "colour": _compare(pairs, _colours),
        "material": _compare(pairs, _materials),
        "item": _compare(pairs, _items),
    }


def _colours(text: str) -> set[str]:
    """Basic colours in a caption; a shade counts as its basic colour."""
    return {BASIC_COLOUR[token] for token in _tokenize(text) if token in BASIC_COLOUR}


def _materials(text: str) -> set[str]:
    return {_MATERIAL_OF[token] for token in _tokenize(text) if token in _MATERIAL_OF}


def _items(text: str) -> set[str]:
    """The last word of the first clause, unless it is a colour or material: some captions have no item."""
    last = _tokenize(CLAUSE_END.split(text)[0])[-1:]
    return {token.removesuffix("s") for token in last if token not in BASIC_COLOUR | _MATERIAL_OF}


def _tokenize(text: str) -> list[str]:
    return re.findall(r"[a-z]+", text.lower())


def _compare(pairs: list[tuple[str, str]], terms_of: Callable[[str], set[str]]) -> Agreement:
    terms = [(expected, terms_of(new)) for reference, new in pairs if (expected := terms_of(reference))]
    shared = [expected & new for expected, new in terms]
    shared_count = sum(map(len, shared))
    return {
        "photos": len(terms),
        "agree": _percent(sum(map(bool, shared)), len(terms)),
        "recall": _percent(shared_count, sum(len(expected) for expected, _ in terms)),
        "precision": _percent(shared_count, sum(len(new) for _, new in terms)),
    }


def _percent(part: int, total: int) -> float | None:
    return round(100 * part / total, 1) if total else None
