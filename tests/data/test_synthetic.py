import io
from collections import Counter, defaultdict
from itertools import pairwise

import numpy as np
import pytest
from PIL import Image

from stbir.data.sources.registry import open_source
from stbir.data.sources.synthetic.catalogue import (
    ASPECTS,
    BODIES,
    FEET,
    MATERIALS,
    SIDES,
    Item,
    Words,
    catalogue,
    split_sizes,
)
from stbir.data.sources.synthetic.photo import draw_photo
from stbir.data.sources.synthetic.sketch import draw_sketch
from stbir.errors import InputError


def best_possible(items: list[Item], *, sketch: bool, text: bool) -> float:
    """Acc@1 of one that knows all that its query tells, and guesses among the photos it fits."""

    def known(item: Item) -> tuple[object, ...]:
        return (item.shape if sketch else None, item.caption if text else None)

    fitting = Counter(known(item) for item in items)
    return float(np.mean([1 / fitting[known(item)] for item in items]))


@pytest.mark.parametrize(("photos", "seed"), [(100, 0), (600, 0), (600, 7), (2000, 1)])
def test_neither_sketch_nor_text_alone_can_win_but_both_together_do(photos: int, seed: int) -> None:
    by_split = defaultdict(list)
    for item in catalogue(photos, seed):
        by_split[item.split].append(item)
    for split in ("train", "test"):
        assert best_possible(by_split[split], sketch=True, text=False) <= 0.3
        assert best_possible(by_split[split], sketch=False, text=True) <= 0.3
        assert best_possible(by_split[split], sketch=True, text=True) == 1


def test_shapes_of_one_split_are_in_no_other() -> None:
    splits = defaultdict(set)
    for item in catalogue(1000, 0):
        splits[item.shape._replace(jitter=(0.0, 0.0))].add(item.split)
    assert all(len(found) == 1 for found in splits.values())


def test_words_and_shape_say_nothing_of_each_other() -> None:
    items = catalogue(600, 0)
    shape_words = {*BODIES, *ASPECTS, *FEET, *SIDES}
    assert not any(shape_words & set(item.caption.replace(",", "").split()) for item in items)
    seen = {(item.shape.body, item.words.material) for item in items}
    assert seen == {(body, material) for body in BODIES for material in MATERIALS}


@pytest.mark.parametrize("photos", [*range(8), 10, 37, 100])
def test_there_are_as_many_photos_as_asked_for_and_some_in_each_split(photos: int) -> None:
    items = catalogue(photos, 0)
    assert [item.number for item in items] == list(range(photos))
    assert Counter(item.split for item in items) == {s: n for s, n in split_sizes(photos).items() if n}
    assert photos < 10 or min(split_sizes(photos).values()) >= 1


def test_pictures_depend_on_the_uri_alone() -> None:
    source = open_source("synthetic:12,seed=3")
    uris = [source.entries[5].photo, *source.entries[5].sketches]
    first = [source.read(uri) for uri in uris]
    catalogue.cache_clear()
    assert [source.read(uri) for uri in reversed(uris)] == first[::-1]
    assert len(set(first)) == len(first)
    other = open_source("synthetic:12,seed=4")
    assert other.read(other.entries[5].photo) != first[0]


def test_listed_pictures_are_real_pictures() -> None:
    source = open_source("synthetic:8")
    assert source.unused == {}
    for entry in source.entries:
        photo = Image.open(io.BytesIO(source.read(entry.photo)))
        sketch = Image.open(io.BytesIO(source.read(entry.sketches[-1])))
        assert (photo.format, photo.mode, sketch.format, sketch.mode) == ("JPEG", "RGB", "PNG", "L")
        assert photo.size == sketch.size == (256, 256)
        assert 2 <= len(entry.sketches) <= 4
        assert entry.text_source == "synthetic"


@pytest.mark.parametrize("uri", ["synthetic:5,0/5/photo", "synthetic:5,0/1/hat", "photo.png"])
def test_other_uris_are_refused(uri: str) -> None:
    with pytest.raises(InputError, match="use the URIs that"):
        open_source("synthetic:5").read(uri)


def box(mask: np.ndarray) -> tuple[int, int, int, int]:
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    return columns[0], rows[0], columns[-1], rows[-1]


def overlap(a: tuple[int, ...], b: tuple[int, ...]) -> float:
    """Intersection over union of two boxes (left, top, right, bottom)."""
    wide = min(a[2], b[2]) - max(a[0], b[0])
    high = min(a[3], b[3]) - max(a[1], b[1])
    area = [(x[2] - x[0]) * (x[3] - x[1]) for x in (a, b)]
    return max(0, wide) * max(0, high) / (sum(area) - max(0, wide) * max(0, high))


def painted(item: Item, words: Words) -> np.ndarray:
    other = Item(item.number, item.split, item.shape, words, item.sketches)
    return np.asarray(draw_photo(other, np.random.default_rng(1)), dtype=int)


def test_a_sketch_shows_the_form_of_its_photo() -> None:
    """Where two paints of one object differ, there the object is; the sketch must lie just there."""
    for item in catalogue(200, 0)[::9]:
        red, blue = (painted(item, Words(colour, "ceramic", "white", "dots")) for colour in ("red", "blue"))
        object_ = np.abs(red - blue).max(-1) > 12
        ink = np.asarray(draw_sketch(item.shape, np.random.default_rng(item.number))) < 128
        assert overlap(box(object_), box(ink)) > 0.65


def test_materials_and_patterns_change_the_photo_and_nothing_but_the_object() -> None:
    item = catalogue(50, 0)[0]
    plain = Words("red", "ceramic", "white", "dots")
    variants = [
        plain,
        plain._replace(material="wooden"),
        plain._replace(material="metal"),
        plain._replace(pattern="zigzag"),
        plain._replace(accent="black"),
    ]
    photos = [painted(item, words) for words in variants]
    for one, other in pairwise(photos):
        assert np.abs(one - other).max(-1).mean() > 1
        np.testing.assert_array_equal(one[:8], other[:8])
