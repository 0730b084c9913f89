"""Exact search by int8 codes against a slow loop over all photos."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from stbir.gallery.exact_search import VectorScan
from stbir.gallery.int8_codes import decode, dot_products, encode

DIM = 8
# Few values and long vectors beside short ones: equal scores, coarse codes, zeros.
VALUES = st.sampled_from([0.0, 1.0, -1.0, 0.5, 1e-3, 100.0, 1e-30])
PHOTOS = st.integers(0, 40).flatmap(lambda rows: arrays(np.float32, (rows, DIM), elements=VALUES))
QUERIES = arrays(np.float32, DIM, elements=VALUES)


def slow_ranking(photo_ND: np.ndarray, query_D: np.ndarray, rows: list[int], k: int) -> list[int]:
    """Best first; equal scores in the order of the rows."""
    return sorted(rows, key=lambda row: -float(np.vecdot(photo_ND[row], query_D)))[:k]


@given(PHOTOS, QUERIES, st.integers(1, 45), st.sets(st.integers(0, 39)) | st.none())
def test_scan_equals_a_loop_over_all_photos(photo_ND, query_D, k, selected):
    rows = [row for row in range(len(photo_ND)) if selected is None or row in selected]
    indices = None if selected is None else np.array(rows, np.int64)
    ranking = VectorScan(photo_ND).nearest(query_D, k, indices)
    assert ranking.indices.tolist() == slow_ranking(photo_ND, query_D, rows, k)
    assert ranking.scores.tolist() == [np.vecdot(photo_ND[row], query_D) for row in ranking.indices]


@pytest.mark.parametrize("noise", [0.0, 1e-6, 1e-2])  # equal, closer than codes can tell, and apart
def test_scan_orders_near_copies(noise):
    rng = np.random.default_rng(0)
    photo_ND = (rng.normal(size=512) + noise * rng.normal(size=(3000, 512))).astype(np.float32)
    ranking = VectorScan(photo_ND).nearest(photo_ND[7], 20)
    assert ranking.indices.tolist() == slow_ranking(photo_ND, photo_ND[7], list(range(3000)), 20)


def test_few_rows_of_different_photos_are_scored_in_full():
    rng = np.random.default_rng(0)
    photo_ND = rng.normal(size=(5000, 256)).astype(np.float32)
    photo_ND /= np.linalg.norm(photo_ND, axis=1, keepdims=True)
    scan = VectorScan(photo_ND)
    assert len(scan._can_be_best(photo_ND[3], 10, None)) < 500
    assert scan.num_bytes == 5000 * (5 * 256 + 8)


@pytest.mark.parametrize("dim", [1, 7, 768])
def test_products_of_codes_equal_integer_arithmetic(dim):
    codes_ND, scale_N = encode(vectors := np.random.default_rng(0).normal(size=(50, dim)).astype(np.float32))
    products = dot_products([codes_ND[:20], codes_ND[20:]], codes_ND[:1])
    assert products.tolist() == (codes_ND.astype(int) @ codes_ND[0].astype(int)).tolist()
    errors_N = np.abs(vectors - decode(codes_ND, scale_N)).max(axis=1)
    assert (errors_N <= 0.5001 * scale_N).all()
