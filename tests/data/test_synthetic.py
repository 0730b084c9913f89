import io
from collections import Counter, defaultdict
from dataclasses import replace
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
    Attributes,
    Item,
    catalogue,
    split_sizes,
)
from stbir.data.sources.synthetic.photo import draw_photo
from stbir.data.sources.synthetic.sketch import draw_sketch
from stbir.errors import InputError


def max_recall(items: list[Item], *, sketch: bool, text: bool) -> float:
    """Recall@1 of an ideal model: a random choice among the photos that match the query."""

    def query(item: Item) -> tuple[object, ...]:
        return (item.shape if sketch else None, item.caption if text else None)

    num_matches = Counter(query(item) for item in items)
    return float(np.mean([1 / num_matches[query(item)] for item in items]))


@pytest.mark.parametrize(("photos", "seed"), [(100, 0), (600, 0), (600, 7), (2000, 1)])
def test_only_sketch_plus_text_identifies_a_photo(photos: int, seed: int) -> None:
    by_split = defaultdict(list)
    for item in catalogue(photos, seed):
        by_split[item.split].append(item)
    for split in ("train", "test"):
        assert max_recall(by_split[split], sketch=True, text=False) <= 0.3
        assert max_recall(by_split[split], sketch=False, text=True) <= 0.3
        assert max_recall(by_split[split], sketch=True, text=True) == 1


def test_splits_share_no_shape() -> None:
    splits = defaultdict(set)
    for item in catalogue(1000, 0):
        splits[item.shape._replace(jitter=(0.0, 0.0))].add(item.split)
    assert all(len(names) == 1 for names in splits.values())


def test_captions_do_not_describe_the_shape() -> None:
    items = catalogue(600, 0)
    shape_terms = {*BODIES, *ASPECTS, *FEET, *SIDES}
    assert not any(shape_terms & set(item.caption.replace(",", "").split()) for item in items)
    pairs = {(item.shape.body, item.attributes.material) for item in items}
    assert pairs == {(body, material) for body in BODIES for material in MATERIALS}


@pytest.mark.parametrize("photos", [*range(8), 10, 37, 100])
def test_a_data_set_has_the_requested_size_and_no_empty_split(photos: int) -> None:
    items = catalogue(photos, 0)
    assert [item.number for item in items] == list(range(photos))
    assert Counter(item.split for item in items) == {s: n for s, n in split_sizes(photos).items() if n}
    assert photos < 10 or min(split_sizes(photos).values()) >= 1


def test_images_depend_only_on_the_uri() -> None:
    source = open_source("synthetic:12,seed=3")
    uris = [source.entries[5].photo, *source.entries[5].sketches]
    images = [source.read(uri) for uri in uris]
    catalogue.cache_clear()
    assert [source.read(uri) for uri in reversed(uris)] == images[::-1]
    assert len(set(images)) == len(images)
    other = open_source("synthetic:12,seed=4")
    assert other.read(other.entries[5].photo) != images[0]


def test_images_have_the_expected_format() -> None:
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
def test_an_invalid_uri_is_refused(uri: str) -> None:
    with pytest.raises(InputError, match="use the URIs of"):
        open_source("synthetic:5").read(uri)


def bounding_box(mask: np.ndarray) -> tuple[int, int, int, int]:
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    return columns[0], rows[0], columns[-1], rows[-1]


def overlap(a: tuple[int, ...], b: tuple[int, ...]) -> float:
    """Intersection over union of two boxes (left, top, right, bottom)."""
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    area = [(x[2] - x[0]) * (x[3] - x[1]) for x in (a, b)]
    return max(0, width) * max(0, height) / (sum(area) - max(0, width) * max(0, height))


def render(item: Item, attributes: Attributes) -> np.ndarray:
    return np.asarray(draw_photo(replace(item, attributes=attributes), np.random.default_rng(1)), dtype=int)


def test_sketch_and_photo_have_the_same_bounding_box() -> None:
    """The object is where two photos of it in different colours differ."""
    for item in catalogue(200, 0)[::9]:
        red, blue = (
            render(item, Attributes(colour, "ceramic", "white", "dots")) for colour in ("red", "blue")
        )
        mask = np.abs(red - blue).max(-1) > 12
        ink = np.asarray(draw_sketch(item.shape, np.random.default_rng(item.number))) < 128
        assert overlap(bounding_box(mask), bounding_box(ink)) > 0.65


def test_material_pattern_and_accent_change_only_the_object() -> None:
    item = catalogue(50, 0)[0]
    base = Attributes("red", "ceramic", "white", "dots")
    variants = [
        base,
        base._replace(material="wooden"),
        base._replace(material="metal"),
        base._replace(pattern="zigzag"),
        base._replace(accent="black"),
    ]
    photos = [render(item, attributes) for attributes in variants]
    for one, other in pairwise(photos):
        assert np.abs(one - other).max(-1).mean() > 1
        np.testing.assert_array_equal(one[:8], other[:8])
