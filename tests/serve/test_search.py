"""Search of a group of queries against searches of single queries."""

import asyncio
import pickle
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from serve.deadline import Deadline, DeadlineExceededError
from serve.deployments import search as group_search
from serve.deployments.error_mapping import to_problem
from serve.deployments.item_results import map_items
from serve.deployments.search import LoadedRelease, query_deadline
from serve.messages import Encoded, Query, Release, SearchResult
from serve.problem import Problem
from stbir.errors import InputError
from stbir.gallery.filters import Condition
from stbir.gallery.gallery import open_gallery
from stbir.gallery.table import TABLE
from stbir.model import checkpoint
from stbir.model.fusion import Gate

BOX = (Condition("category", "in", ["box"]),)


@pytest.fixture(scope="module")
def loaded(checkpoint_uri, gallery_uri) -> LoadedRelease:
    digest = checkpoint.read_digest(checkpoint_uri)
    gallery = open_gallery(gallery_uri, digest)
    release = Release(checkpoint_uri, digest, gallery_uri, gallery.version)
    return LoadedRelease(release, gallery, Gate(gallery.dim, 4))


def random_vector(loaded: LoadedRelease, seed: int) -> Encoded:
    vector = np.random.default_rng(seed).normal(size=loaded.gallery.dim).astype(np.float32)
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


def search(loaded: LoadedRelease, sketches: Any, texts: Any, queries: Sequence[Query]) -> list[Any]:
    deadlines = [query_deadline(*each) for each in zip(queries, sketches, texts, strict=True)]
    return group_search.search(loaded, sketches, texts, queries, deadlines)


def hits(result: SearchResult | Exception) -> list[tuple[str, Any]]:
    assert isinstance(result, SearchResult)
    return [(hit["photo_id"], pytest.approx(hit["score"], abs=1e-5)) for hit in result.hits]


def test_expired_query_is_not_searched(loaded: LoadedRelease) -> None:
    queries = [Query(None, None, 3, 0.5, None, budget_s=budget_s) for budget_s in (-1, 60)]
    expired, result = search(loaded, [random_vector(loaded, 0)] * 2, [None, None], queries)
    assert isinstance(expired, DeadlineExceededError)
    assert len(hits(result)) == 3


def test_time_at_the_encoders_counts_to_the_budget(loaded: LoadedRelease) -> None:
    slow = replace(random_vector(loaded, 0), elapsed_s=5.0)
    query = Query(None, None, 3, 0.5, None, budget_s=4.0)
    [expired] = search(loaded, [random_vector(loaded, 1)], [slow], [query])
    assert isinstance(expired, DeadlineExceededError)


def test_query_that_expires_during_the_search_of_other_filters_is_not_searched(
    loaded: LoadedRelease, monkeypatch: pytest.MonkeyPatch
) -> None:
    nearest, num_searched = loaded.gallery.search, list[int]()

    def slow(vectors: Any, *args: Any) -> Any:
        num_searched.append(len(vectors))
        time.sleep(0.1)
        return nearest(vectors, *args)

    monkeypatch.setattr(loaded.gallery, "search", slow)
    queries = [Query(None, None, 3, 0.5, None, budget_s=9)]
    queries += [Query(None, None, 3, 0.5, "box", budget_s=budget_s) for budget_s in (0.05, 9)]
    first, expired, last = search(loaded, [random_vector(loaded, 0)] * 3, [None] * 3, queries)
    assert num_searched == [1, 1]
    assert isinstance(expired, DeadlineExceededError)
    assert (len(hits(first)), len(hits(last))) == (3, 3)


def test_deadline_stays_in_its_process() -> None:
    with pytest.raises(TypeError, match="send `remaining_s`"):
        pickle.dumps(Deadline.after(1))


def test_query_of_a_group_has_the_same_hits_as_a_single_query(loaded: LoadedRelease) -> None:
    has_sketch = [query.photo_id is None for query in QUERIES]
    sketches = [random_vector(loaded, n) if has_sketch[n] else None for n in range(len(QUERIES))]
    texts = [random_vector(loaded, 100 + n) if n % 3 else None for n in range(len(QUERIES))]
    results = search(loaded, sketches, texts, QUERIES)
    for sketch, text, query, result in zip(sketches, texts, QUERIES, results, strict=True):
        [single_result] = search(loaded, [sketch], [text], [query])
        # In a matrix product, the last digit of a score depends on the other queries.
        assert dict(hits(result)) == pytest.approx(dict(hits(single_result)), abs=2e-5)
        assert list(dict(hits(result))) == list(dict(hits(single_result)))
        assert len(hits(result)) == query.k
        assert query.photo_id not in dict(hits(result))
        steps = {step for part in (sketch, text) if part for step in part.timing_ms}
        assert isinstance(result, SearchResult)
        assert set(result.timing_ms) == steps | {"fuse", "search"}


def test_error_of_a_query_is_its_result(loaded: LoadedRelease) -> None:
    sketch, sketch_error = random_vector(loaded, 1), InputError("sketch: truncated")
    queries = [
        Query(None, None, 3, 0.5, None),
        Query(None, None, 3, 0.5, None),
        Query(None, None, 3, 0.5, "hat"),
        Query(None, None, 3, 0.5, None, photo_id="nobody"),
    ]
    sketches = [sketch, sketch_error, sketch, None]
    good, truncated, category, photo = search(loaded, sketches, [None] * 4, queries)
    assert len(hits(good)) == 3
    assert truncated is sketch_error
    assert str(category).startswith("category: no category 'hat'")
    assert str(photo).startswith("photo_id: 'nobody'")


def test_a_storage_error_fails_only_the_queries_that_read(
    checkpoint_uri: str, write_gallery: Callable[[Path, str], str], tmp_path: Path
) -> None:
    """Vectors and ids are in memory; the photo of a `photo_id` and the columns of a filter are read."""
    digest = checkpoint.read_digest(checkpoint_uri)
    uri = write_gallery(tmp_path / "gallery", digest)
    gallery = open_gallery(uri, digest)
    release = Release(checkpoint_uri, digest, uri, gallery.version)
    loaded = LoadedRelease(release, gallery, Gate(gallery.dim, 4))
    for file in (tmp_path / "gallery" / TABLE / "data").iterdir():
        file.unlink()
    queries = [QUERIES[0], QUERIES[3], QUERIES[5], QUERIES[1]]
    sketches = [None if query.photo_id else random_vector(loaded, 0) for query in queries]
    good, filtered, photo, other = search(loaded, sketches, [None] * 4, queries)
    assert (len(hits(good)), len(hits(other))) == (3, 5)
    for error in (filtered, photo):
        assert isinstance(pickle.loads(pickle.dumps(error)), OSError)
        problem = to_problem(error, 1)
        assert isinstance(problem, Problem)
        assert problem.status == 503
        assert str(tmp_path) not in problem.detail


class CodecError(Exception):
    """An error that cannot be pickled: its constructor takes two arguments."""

    def __init__(self, first: str, second: str) -> None:
        super().__init__(first)


ERRORS = {
    "input": (InputError("sketch: not a readable image"), InputError),
    "memory": (MemoryError(), OSError),
    "storage": (ConnectionResetError("peer"), OSError),
    "bug": (KeyError("x"), RuntimeError),
    "codec": (CodecError("a", "b"), RuntimeError),
}


def test_the_error_of_an_item_is_its_result() -> None:
    async def step(item: str, deadline: Deadline) -> str:
        if item in ERRORS:
            raise ERRORS[item][0]
        return item.upper()

    items = ["first", *ERRORS, None, "last"]
    results = asyncio.run(map_items(step, items, [Deadline.after(60)] * len(items)))
    assert (results[0], results[-2], results[-1]) == ("FIRST", None, "LAST")
    for result, (_, kind) in zip(results[1:-2], ERRORS.values(), strict=True):
        assert type(pickle.loads(pickle.dumps(result))) is kind
