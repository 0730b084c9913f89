"""The texts asked for last, against a slow list."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from serve.deployments.text_cache import Recent

VECTORS = {name: np.full(2, place, np.float32) for place, name in enumerate("abcdef")}


@given(st.integers(0, 4), st.lists(st.tuples(st.sampled_from(sorted(VECTORS)), st.booleans())))
def test_it_keeps_what_was_used_last(most: int, steps: list[tuple[str, bool]]) -> None:
    recent, used = Recent(most), list[str]()
    for name, put in steps:
        kept = used[-most:] if most else []
        assert recent.get(name) is (VECTORS[name] if name in kept else None)
        if put or name in kept:
            used = [other for other in kept if other != name] + [name]
        if put:
            recent.put(name, VECTORS[name])
