"""Fixtures of the tests of several stores of vectors."""

import pytest


@pytest.fixture
def few_queries(monkeypatch: pytest.MonkeyPatch) -> None:
    """Gates that measure with few queries: milvus-lite needs milliseconds for each."""
    monkeypatch.setattr("stbir.gallery.recall._NUM_QUERIES", 8)
    monkeypatch.setattr("stbir.gallery.latency._MIN_QUERIES", 2)
    monkeypatch.setattr("stbir.gallery.latency._MAX_SECONDS", 0.01)
