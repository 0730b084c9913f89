"""Which object each synthetic photo shows: so dealt out that neither sketch nor text alone can win.

The photos of a split lie in blocks of about 16, a grid of shapes x wordings: every shape comes in three to
five wordings and every wording in three to five shapes. Either modality alone narrows a block down to one
row or one column of it; both together leave one photo. No shape is in two blocks (up to 960 shapes a
category), so the shapes of test are none of train's.
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
SIDES = ("bare", "handle", "handles", "spout")
TOPS = (0, 1, 2, 3)

COLOURS = ("red", "orange", "yellow", "green", "teal", "blue", "purple", "pink", "brown", "grey")
MATERIALS = ("ceramic", "wooden", "metal", "glass")
ACCENTS = ("white", "black", "gold")
PATTERNS = ("bands", "dots", "zigzag", "diamonds")

BLOCK = 16
_NEAR_GOLD = ("orange", "yellow", "brown")
_SHARES = {"val": 0.05, "test": 0.20}


class Shape(NamedTuple):
    """What a sketch can show. `jitter` moves height and girth a little, in [-1, 1]."""

    category: str
    body: str
    aspect: str
    foot: str
    side: str
    top: int
    jitter: tuple[float, float] = (0.0, 0.0)


class Words(NamedTuple):
    """What a text can say."""

    colour: str
    material: str
    accent: str
    pattern: str


@dataclass(frozen=True)
class Item:
    """One photo: what it shows, its split, and how many sketches there are of it."""

    number: int
    split: str
    shape: Shape
    words: Words
    sketches: int

    @property
    def caption(self) -> str:
        """`colour material item, detail`: the item's word says nothing of its form."""
        words = self.words
        return f"{words.colour} {words.material} {self.shape.category}, {words.accent} {words.pattern}"


@lru_cache(maxsize=4)
def catalogue(photos: int, seed: int) -> tuple[Item, ...]:
    """The items of a set of `photos` photos: the same for the same numbers, on every machine."""
    rng = np.random.default_rng(seed)
    shapes = [_every_shape(category, rng) for category in CATEGORIES]
    used = [0] * len(CATEGORIES)
    items: list[Item] = []
    block = 0
    for split, count in split_sizes(photos).items():
        for size in _block_sizes(count):
            kind = block % len(CATEGORIES)
            wide, high = _grid(size)
            forms = [_jittered(shapes[kind][(used[kind] + i) % len(shapes[kind])], rng) for i in range(high)]
            items += _block(len(items), split, size, forms, _some_words(wide, rng), rng)
            used[kind] += high
            block += 1
    return tuple(items)


def split_sizes(photos: int) -> dict[str, int]:
    """Photos of train, val and test: 75 / 5 / 20 percent, at least one each from 3 photos on."""
    held = {split: max(1, round(share * photos)) if photos >= 3 else 0 for split, share in _SHARES.items()}
    return {"train": photos - sum(held.values()), **held}


def _block_sizes(count: int) -> list[int]:
    """`count` in even parts of about BLOCK, so that no photo is left in a block by itself."""
    blocks = max(1, round(count / BLOCK))
    return [size for i in range(blocks) if (size := count // blocks + (i < count % blocks))]


def _grid(size: int) -> tuple[int, int]:
    """Wordings a shape, and shapes, of a block: as near to a square as its size allows."""
    wide = int(np.ceil(np.sqrt(size)))
    return wide, int(np.ceil(size / wide))


def _block(
    first: int, split: str, size: int, shapes: list[Shape], words: list[Words], rng: np.random.Generator
) -> list[Item]:
    wide = len(words)
    drawn = rng.integers(2, 5, size)
    return [Item(first + i, split, shapes[i // wide], words[i % wide], int(drawn[i])) for i in range(size)]


def _every_shape(category: str, rng: np.random.Generator) -> list[Shape]:
    shapes = [Shape(category, *parts) for parts in product(BODIES, ASPECTS, FEET, SIDES, TOPS)]
    return [shapes[i] for i in rng.permutation(len(shapes))]


def _jittered(shape: Shape, rng: np.random.Generator) -> Shape:
    height, girth = rng.uniform(-1, 1, 2)
    return shape._replace(jitter=(float(height), float(girth)))


@lru_cache(maxsize=1)
def _every_words() -> list[Words]:
    all_ = (Words(*words) for words in product(COLOURS, MATERIALS, ACCENTS, PATTERNS))
    return [words for words in all_ if words.accent != "gold" or words.colour not in _NEAR_GOLD]


def _some_words(count: int, rng: np.random.Generator) -> list[Words]:
    words = _every_words()
    return [words[i] for i in rng.choice(len(words), count, replace=False)]
