"""The LRU cache of texts against a slow list."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from serve.deployments.text_cache import TextCache

VECTORS = {name: np.full(2, index, np.float32) for index, name in enumerate("abcdef")}


@given(st.integers(0, 4), st.lists(st.tuples(st.sampled_from(sorted(VECTORS)), st.booleans())))
def test_lru_texts_are_evicted(size: int, steps: list[tuple[str, bool]]) -> None:
    cache, used = TextCache(size), list[str]()
    for name, is_stored in steps:
        cached = used[-size:] if size else []
        assert cache.get(name) is (VECTORS[name] if name in cached else None)
        if is_stored or name in cached:
            used = [other for other in cached if other != name] + [name]
        if is_stored:
            cache[name] = VECTORS[name]
