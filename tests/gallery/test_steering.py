"""Steered search against slow loops over all photos, exactly and with an index."""

import numpy as np
import pytest

from stbir.errors import InputError
from stbir.gallery.gallery import Gallery
from stbir.gallery.index import IndexPlan
from stbir.gallery.steering import MAX_DUPLICATES, Penalty, Steering, search_steered
from stbir.storage.folder import Folder
from tests.gallery.test_gallery import CATEGORIES, DIM, publish_gallery, unit_vectors

NUM_ITEMS, NUM_COPIES = 150, 4
PLANS = pytest.mark.parametrize("gallery", ["exact", "index"], indirect=True)


def near_copies(seed: int = 0) -> np.ndarray:
    """Four near-duplicates of each item, one after the other; items are far from each other."""
    items = np.repeat(unit_vectors(NUM_ITEMS, seed), NUM_COPIES, axis=0)
    noisy = items + 0.005 * unit_vectors(len(items), seed + 1)
    return (noisy / np.linalg.norm(noisy, axis=1, keepdims=True)).astype(np.float32)


PHOTOS = near_copies()
[QUERY, NEGATIVE, OTHER] = unit_vectors(3, seed=9)


@pytest.fixture(scope="module")
def galleries(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Gallery]:
    plans = {"exact": None, "index": IndexPlan(4, 4, "IVF_SQ")}
    folders = {name: Folder(str(tmp_path_factory.mktemp(name))) for name in plans}
    return {name: publish_gallery(folders[name], PHOTOS, plan) for name, plan in plans.items()}


@pytest.fixture
def gallery(request: pytest.FixtureRequest, galleries: dict[str, Gallery]) -> Gallery:
    return galleries[request.param]


def slow_scores(query: np.ndarray, penalties: tuple[Penalty, ...]) -> list[float]:
    scores = []
    for photo in PHOTOS:
        score = float(photo @ (query / np.linalg.norm(query)))
        for penalty in penalties:
            unit = penalty.vector / np.linalg.norm(penalty.vector)
            mean = sum(float(other @ unit) for other in PHOTOS) / len(PHOTOS)
            score -= penalty.weight * max(0.0, float(photo @ unit) - mean)
        scores.append(score)
    return scores


def slow_search(scores: list[float], k: int, excluded: tuple[int, ...] = ()) -> list[tuple[str, float]]:
    order = sorted(range(len(scores)), key=lambda row: -scores[row])
    return [(f"photo-{row}", scores[row]) for row in order if row not in excluded][:k]


def assert_hits(hits: list, expected: list[tuple[str, float]]) -> None:
    assert [hit.photo_id for hit in hits] == [photo_id for photo_id, _ in expected]
    assert [hit.score for hit in hits] == pytest.approx([score for _, score in expected], abs=1e-5)


@PLANS
@pytest.mark.parametrize("weight", [0.0, 0.5, 20.0])  # the last needs more rows than are read at first
@pytest.mark.parametrize("k", [1, 7])
def test_penalties_equal_a_loop_over_all_photos(gallery: Gallery, weight: float, k: int) -> None:
    penalties = (Penalty(3 * NEGATIVE, weight), Penalty(OTHER, weight / 2))
    hits = search_steered(gallery, QUERY, k, Steering(penalties))
    assert_hits(hits, slow_search(slow_scores(QUERY, penalties), k))


@PLANS
def test_marks_move_the_query_by_rocchio_and_are_no_hits(gallery: Gallery) -> None:
    like, unlike = (3, 90), (200,)
    moved = QUERY + 0.75 * (PHOTOS[3] + PHOTOS[90]) / 2 - 0.15 * PHOTOS[200]
    steering = Steering(like=("photo-3", "photo-90", "photo-3"), unlike=("photo-200",), exclude=("photo-4",))
    hits = search_steered(gallery, 5 * QUERY, 9, steering)
    assert_hits(hits, slow_search(slow_scores(moved, ()), 9, (*like, *unlike, 4)))


def test_like_by_itself_is_a_query(galleries: dict[str, Gallery]) -> None:
    gallery = galleries["exact"]
    hits = search_steered(gallery, None, 5, Steering(like=("photo-3",)))
    assert_hits(hits, slow_search(slow_scores(PHOTOS[3], ()), 5, (3,)))


@PLANS
@pytest.mark.parametrize("category", [None, CATEGORIES[0]])
def test_near_duplicates_are_one_hit(gallery: Gallery, category: str | None) -> None:
    penalties = (Penalty(NEGATIVE),)
    scores = slow_scores(QUERY, penalties)
    hits = search_steered(gallery, QUERY, 100, Steering(penalties, group=True), category)
    rows = [row for row in range(len(PHOTOS)) if category in (None, CATEGORIES[row % len(CATEGORIES)])]
    best = {}  # the best copy of each item
    for row in sorted(rows, key=lambda row: -scores[row]):
        best.setdefault(row // NUM_COPIES, row)
    first = list(best.values())[:100]
    assert_hits(hits, [(f"photo-{row}", scores[row]) for row in first])
    for hit, row in zip(hits, first, strict=True):
        item = range(row // NUM_COPIES * NUM_COPIES, (row // NUM_COPIES + 1) * NUM_COPIES)
        others = {f"photo-{copy}" for copy in item if copy in rows and copy != row}
        assert (hit.count, set(hit.duplicates)) == (1 + len(others), others)


def test_a_marked_photo_is_in_no_group(galleries: dict[str, Gallery]) -> None:
    steering = Steering(like=("photo-5",), group=True)
    [hit, *_] = search_steered(galleries["exact"], None, 3, steering)
    assert {hit.photo_id, *hit.duplicates} == {"photo-4", "photo-6", "photo-7"}


def test_thousands_of_copies_are_counted_and_do_not_hide_other_items(tmp_path) -> None:
    vectors = np.concatenate([np.repeat(QUERY[None], 3000, axis=0), unit_vectors(40, seed=3)])
    gallery = publish_gallery(Folder(str(tmp_path)), vectors)
    hits = search_steered(gallery, QUERY, 5, Steering(group=True))
    assert [hit.count for hit in hits] == [3000, 1, 1, 1, 1]
    assert len(hits[0].duplicates) == MAX_DUPLICATES


def test_different_items_are_not_near_duplicates(galleries: dict[str, Gallery]) -> None:
    cosine = galleries["exact"].statistics.duplicate_cosine
    cosine_NN = PHOTOS @ PHOTOS.T
    item_N = np.arange(len(PHOTOS)) // NUM_COPIES
    is_same_NN = item_N[:, None] == item_N
    assert cosine_NN[is_same_NN].min() > cosine > cosine_NN[~is_same_NN].max()


@pytest.mark.parametrize("num_photos", [1, 2])
def test_statistics_of_a_tiny_gallery(tmp_path, num_photos: int) -> None:
    gallery = publish_gallery(Folder(str(tmp_path)), unit_vectors(num_photos))
    steering = Steering((Penalty(NEGATIVE),), group=True)
    assert len(search_steered(gallery, QUERY, 5, steering)) == num_photos


def test_an_empty_gallery_has_no_hits(tmp_path) -> None:
    gallery = publish_gallery(Folder(str(tmp_path)), unit_vectors(0))
    assert search_steered(gallery, QUERY, 5, Steering((Penalty(NEGATIVE),), group=True)) == []


def test_empty_results(galleries: dict[str, Gallery]) -> None:
    marks = tuple(f"photo-{row}" for row in range(len(PHOTOS)))
    steering = Steering((Penalty(NEGATIVE),), like=marks, group=True)
    assert search_steered(galleries["exact"], QUERY, 5, steering) == []


@pytest.mark.parametrize(
    ("vector", "steering", "message"),
    [
        (QUERY, Steering(like=("photo-1", "x")), r"like.1: 'x' is not in the gallery"),
        (QUERY, Steering(unlike=("y",)), r"unlike.0: 'y' is not in the gallery"),
        (QUERY, Steering(like=("photo-1",), unlike=("photo-2", "photo-1")), r"unlike.1: 'photo-1' is in"),
        (None, Steering(unlike=("photo-2",)), r"query: empty"),
        (QUERY[:5], Steering(), rf"vectors: shape .*{DIM}"),
    ],
)
def test_invalid_steering_is_refused(galleries: dict[str, Gallery], vector, steering, message) -> None:
    with pytest.raises(InputError, match=message):
        search_steered(galleries["exact"], vector, 3, steering)
