"""The objects of the synthetic photos, chosen so that a query needs both its sketch and its text.

The photos of a split form blocks of about 16, a grid of shapes x attributes. Each shape has three to five
attribute sets, and each attribute set three to five shapes. One modality narrows a block down to one row or
one column; both together leave one photo. No shape is in two blocks (up to 960 shapes per category), so
train and test share no shape.
"""

from dataclasses import dataclass
from functools import lru_cache
from itertools import product
from typing import NamedTuple

import numpy as np

CATEGORIES = ("vase", "lamp", "jar")
BODIES = ("globe", "cylinder", "cone", "tulip", "gourd")
ASPECTS = ("squat", "medium", "tall")
FEET = ("flat", "plinth", "pedestal", "legs")
SIDES = ("none", "handle", "handles", "spout")
TOPS = (0, 1, 2, 3)

COLOURS = ("red", "orange", "yellow", "green", "teal", "blue", "purple", "pink", "brown", "grey")
MATERIALS = ("ceramic", "wooden", "metal", "glass")
ACCENTS = ("white", "black", "gold")
PATTERNS = ("bands", "dots", "zigzag", "diamonds")

BLOCK_SIZE = 16
_SIMILAR_TO_GOLD = ("orange", "yellow", "brown")
_HELD_OUT_RATIOS = {"val": 0.05, "test": 0.20}


class Shape(NamedTuple):
    """Everything a sketch can show. `jitter` varies height and width slightly, in [-1, 1]."""

    category: str
    body: str
    aspect: str
    foot: str
    side: str
    top: int
    jitter: tuple[float, float] = (0.0, 0.0)


class Attributes(NamedTuple):
    """Everything a text can describe."""

    colour: str
    material: str
    accent: str
    pattern: str


@dataclass(frozen=True)
class Item:
    """One photo: its object, its split and its number of sketches."""

    number: int
    split: str
    shape: Shape
    attributes: Attributes
    num_sketches: int

    @property
    def caption(self) -> str:
        """`colour material category, detail`, without any word for the shape."""
        colour, material, accent, pattern = self.attributes
        return f"{colour} {material} {self.shape.category}, {accent} {pattern}"


@lru_cache(maxsize=4)
def catalogue(num_photos: int, seed: int) -> tuple[Item, ...]:
    """The items of a data set, determined by its size and seed."""
    rng = np.random.default_rng(seed)
    shapes = [_permuted_shapes(category, rng) for category in CATEGORIES]
    used = [0] * len(CATEGORIES)
    items: list[Item] = []
    block = 0
    for split, count in split_sizes(num_photos).items():
        for size in _block_sizes(count):
            category = block % len(CATEGORIES)
            num_attributes, num_shapes = _grid(size)
            block_shapes = [
                _jittered(shapes[category][(used[category] + i) % len(shapes[category])], rng)
                for i in range(num_shapes)
            ]
            attributes = _sample_attributes(num_attributes, rng)
            num_sketches = rng.integers(2, 5, size).tolist()
            items += _block(len(items), split, block_shapes, attributes, num_sketches)
            used[category] += num_shapes
            block += 1
    return tuple(items)


def split_sizes(num_photos: int) -> dict[str, int]:
    """Photos of train, val and test: 75 / 5 / 20 percent, at least one each from 3 photos on."""
    held_out = {
        split: max(1, round(ratio * num_photos)) if num_photos >= 3 else 0
        for split, ratio in _HELD_OUT_RATIOS.items()
    }
    return {"train": num_photos - sum(held_out.values()), **held_out}


def _block_sizes(count: int) -> list[int]:
    """`count` in even parts of about BLOCK_SIZE, so that no block has a single photo."""
    blocks = max(1, round(count / BLOCK_SIZE))
    return [size for i in range(blocks) if (size := count // blocks + (i < count % blocks))]


def _grid(size: int) -> tuple[int, int]:
    """Attribute sets and shapes of a block, nearly equal in number."""
    num_attributes = int(np.ceil(np.sqrt(size)))
    return num_attributes, int(np.ceil(size / num_attributes))


def _block(
    start: int, split: str, shapes: list[Shape], attributes: list[Attributes], num_sketches: list[int]
) -> list[Item]:
    return [
        Item(start + i, split, shapes[i // len(attributes)], attributes[i % len(attributes)], count)
        for i, count in enumerate(num_sketches)
    ]


def _permuted_shapes(category: str, rng: np.random.Generator) -> list[Shape]:
    shapes = [Shape(category, *parts) for parts in product(BODIES, ASPECTS, FEET, SIDES, TOPS)]
    return [shapes[i] for i in rng.permutation(len(shapes))]


def _jittered(shape: Shape, rng: np.random.Generator) -> Shape:
    height, width = rng.uniform(-1, 1, 2)
    return shape._replace(jitter=(float(height), float(width)))


@lru_cache(maxsize=1)
def _all_attributes() -> list[Attributes]:
    combinations = (Attributes(*values) for values in product(COLOURS, MATERIALS, ACCENTS, PATTERNS))
    return [a for a in combinations if a.accent != "gold" or a.colour not in _SIMILAR_TO_GOLD]


def _sample_attributes(count: int, rng: np.random.Generator) -> list[Attributes]:
    attributes = _all_attributes()
    return [attributes[i] for i in rng.choice(len(attributes), count, replace=False)]
