"""How far new captions say what given ones say: the colours, the materials and the item they name."""

import re
from collections.abc import Callable, Iterable
from typing import TypedDict

from stbir.augmentation.text_corruption import CLAUSES, SHADE_OF

# Of each material the words that name it.
_NAMES = {
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
_MATERIAL_OF = {name: material for material, names in _NAMES.items() for name in names}


class Named(TypedDict):
    """Percentages over the `photos` whose given caption names any; None where there is none.

    agree: photos whose new caption names one of the same. recall: names given that are named again.
    precision: new names that were given.
    """

    photos: int
    agree: float | None
    recall: float | None
    precision: float | None


def agreement(pairs: Iterable[tuple[str, str]]) -> dict[str, Named]:
    """Given and new captions of the same photos, side by side."""
    pairs = list(pairs)
    return {
        "colour": _named(pairs, colours),
        "material": _named(pairs, materials),
        "item": _named(pairs, _items),
    }


def colours(text: str) -> set[str]:
    """The basic colours that a caption names, shades counted as what they are shades of."""
    return {SHADE_OF[word] for word in _words(text) if word in SHADE_OF}


def materials(text: str) -> set[str]:
    """The materials that a caption names."""
    return {_MATERIAL_OF[word] for word in _words(text) if word in _MATERIAL_OF}


def _items(text: str) -> set[str]:
    """The last word of the first clause, unless it names no thing: some captions leave the item out."""
    last = _words(CLAUSES.split(text)[0])[-1:]
    return {word.removesuffix("s") for word in last if word not in SHADE_OF and word not in _MATERIAL_OF}


def _words(text: str) -> list[str]:
    return re.findall(r"[a-z]+", text.lower())


def _named(pairs: list[tuple[str, str]], names: Callable[[str], set[str]]) -> Named:
    both = [(given, names(new)) for text, new in pairs if (given := names(text))]
    same = [given & new for given, new in both]
    found = sum(map(len, same))
    return {
        "photos": len(both),
        "agree": _percent(sum(map(bool, same)), len(both)),
        "recall": _percent(found, sum(len(given) for given, _ in both)),
        "precision": _percent(found, sum(len(new) for _, new in both)),
    }


def _percent(part: int, whole: int) -> float | None:
    return round(100 * part / whole, 1) if whole else None
