"""Model versions: each is loaded once, and the two used last stay loaded."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serve.rollout.model_versions import ModelVersions


class Loader:
    """Doubles its key. Waits for `go`, fails for the keys in `failing`, records its calls in `calls`."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.go, self.failing = threading.Event(), set[str]()
        self.go.set()

    def __call__(self, key: str) -> str:
        assert self.go.wait(10)
        self.calls.append(key)
        if key in self.failing:
            raise OSError(key)
        return key * 2


def test_concurrent_callers_share_one_load() -> None:
    loader = Loader()
    loader.go.clear()
    versions = ModelVersions(loader)
    with ThreadPoolExecutor(8) as pool:
        results = [pool.submit(versions.get, "a") for _ in range(8)]
        assert versions.get_loaded("a") is None
        loader.go.set()
        assert {result.result() for result in results} == {"aa"}
    assert (loader.calls, versions.get_loaded("a")) == (["a"], "aa")


def test_lru_version_is_evicted() -> None:
    loader = Loader()
    versions = ModelVersions(loader)
    for key in ("a", "b", "a", "c"):
        versions.get(key)
    assert [versions.get_loaded(key) for key in "abc"] == ["aa", None, "cc"]
    assert loader.calls == ["a", "b", "c"]


def test_get_loaded_counts_as_use() -> None:
    versions = ModelVersions(Loader())
    for key in ("a", "b"):
        versions.get(key)
    assert versions.get_loaded("a") == "aa"
    versions.get("c")
    assert [versions.get_loaded(key) for key in "abc"] == ["aa", None, "cc"]


@given(st.lists(st.sampled_from("abcdef"), max_size=20))
def test_version_in_force_is_never_evicted(keys: list[str]) -> None:
    loader = Loader()
    versions = ModelVersions(loader, lambda: {"in force"})
    for key in ("in force", *keys):
        versions.get(key)
        assert versions.get_loaded(key) == key * 2
    assert loader.calls.count("in force") == 1


@given(st.lists(st.sampled_from("abcdef"), max_size=20))
def test_versions_in_force_are_never_evicted_however_many(keys: list[str]) -> None:
    """Those of several galleries, one of which could not follow the others to a new checkpoint."""
    loader, in_force = Loader(), {"first", "second", "third"}
    versions = ModelVersions(loader, lambda: in_force)
    for key in (*in_force, *keys):
        versions.get(key)
        assert versions.get_loaded(key) == key * 2
    assert [loader.calls.count(key) for key in in_force] == [1, 1, 1]
    assert sum(versions.get_loaded(key) is not None for key in "abcdef") <= 1


def test_a_failed_load_leaves_that_of_a_later_caller() -> None:
    """Other versions evict the key during its first load, and a second one succeeds before that fails."""
    calls = list[str]()

    def load(key: str) -> str:
        calls.append(key)
        if calls == ["a"]:
            for other in "bca":
                versions.get(other)
            raise OSError(key)
        return key * 2

    versions = ModelVersions(load)
    with pytest.raises(OSError, match="a"):
        versions.get("a")
    assert versions.get_loaded("a") == "aa"


def test_failed_load_is_retried_and_evicts_nothing() -> None:
    loader = Loader()
    versions = ModelVersions(loader)
    versions.get("a")
    loader.failing = {"b"}
    with pytest.raises(OSError, match="b"):
        versions.get("b")
    assert (versions.get_loaded("a"), versions.get_loaded("b")) == ("aa", None)
    loader.failing.clear()
    assert versions.get("b") == "bb"
