"""A group of queries over one gallery against the same ones asked one by one."""

import time

import numpy as np
import pytest

from serve.deadline import DeadlineExceededError
from serve.deployments.search import Opened, search
from serve.messages import Encoded, Found, Query, Release
from stbir.errors import InputError
from stbir.gallery.filters import Condition
from stbir.gallery.gallery import open_gallery
from stbir.model import checkpoint
from stbir.model.fusion import Gate

BOX = (Condition("category", "in", ["box"]),)


@pytest.fixture(scope="module")
def opened(checkpoint_uri, gallery_uri) -> Opened:
    digest = checkpoint.read_digest(checkpoint_uri)
    gallery = open_gallery(gallery_uri, digest)
    return Opened(
        Release(checkpoint_uri, digest, gallery_uri, gallery.version), gallery, Gate(gallery.dim, 4)
    )


def encoded(opened: Opened, seed: int) -> Encoded:
    vector = np.random.default_rng(seed).normal(size=opened.gallery.dim).astype(np.float32)
    return Encoded(vector / np.linalg.norm(vector), {f"encode {seed}": 1.0})


QUERIES = [
    Query(None, None, 3, 0.5, None),
    Query(None, None, 5, 0.25, None),
    Query(None, None, 3, 0.5, "disc"),
    Query(None, None, 3, 0.5, None, where=BOX),
    Query(None, None, 3, 0.75, None, where=BOX),
    Query(None, None, 3, 0.5, None, photo_id="shape/04"),
    Query(None, None, 4, 0.5, None, photo_id="shape/07"),
]


def hits(found: Found | Exception) -> list[tuple[str, float]]:
    assert isinstance(found, Found)
    return [(hit["photo_id"], round(hit["score"], 5)) for hit in found.hits]


def test_what_is_late_is_not_searched_for(opened: Opened) -> None:
    queries = [Query(None, None, 3, 0.5, None, deadline=time.time() + far) for far in (-1, 60)]
    late, found = search(opened, [encoded(opened, 0)] * 2, [None, None], queries)
    assert isinstance(late, DeadlineExceededError)
    assert len(hits(found)) == 3


def test_each_finds_what_it_finds_alone(opened: Opened) -> None:
    sketches = [encoded(opened, n) if query.photo_id is None else None for n, query in enumerate(QUERIES)]
    texts = [encoded(opened, 100 + n) if n % 3 else None for n in range(len(QUERIES))]
    together = search(opened, sketches, texts, QUERIES)
    for sketch, text, query, found in zip(sketches, texts, QUERIES, together, strict=True):
        [alone] = search(opened, [sketch], [text], [query])
        assert hits(found) == hits(alone)
        assert len(hits(found)) == query.k
        assert query.photo_id not in dict(hits(found))
        steps = {step for part in (sketch, text) if part for step in part.timing_ms}
        assert isinstance(found, Found)
        assert set(found.timing_ms) == steps | {"fuse", "search"}


def test_what_is_wrong_with_one_stands_in_its_place(opened: Opened) -> None:
    sketch, wrong = encoded(opened, 1), InputError("sketch: cut short")
    queries = [
        Query(None, None, 3, 0.5, None),
        Query(None, None, 3, 0.5, None),
        Query(None, None, 3, 0.5, "hat"),
        Query(None, None, 3, 0.5, None, photo_id="nobody"),
    ]
    good, cut, category, photo = search(opened, [sketch, wrong, sketch, None], [None] * 4, queries)
    assert len(hits(good)) == 3
    assert cut is wrong
    assert str(category).startswith("category: there is no 'hat'")
    assert str(photo).startswith("photo_id: 'nobody'")
