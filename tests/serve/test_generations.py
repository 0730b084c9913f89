"""Two generations side by side: made once each, by whoever asks first."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from serve.rollout.model_versions import Generations


class Maker:
    """Makes each key into itself doubled; waits for `go`, fails for what is in `bad`."""

    def __init__(self) -> None:
        self.made: list[str] = []
        self.go, self.bad = threading.Event(), set[str]()
        self.go.set()

    def __call__(self, key: str) -> str:
        assert self.go.wait(10)
        self.made.append(key)
        if key in self.bad:
            raise OSError(key)
        return key * 2


def test_all_who_ask_at_once_get_the_one_that_is_made() -> None:
    maker = Maker()
    maker.go.clear()
    two = Generations(maker)
    with ThreadPoolExecutor(8) as pool:
        asked = [pool.submit(two.get, "a") for _ in range(8)]
        assert two.there("a") is None
        maker.go.set()
        assert {each.result() for each in asked} == {"aa"}
    assert (maker.made, two.there("a")) == (["a"], "aa")


def test_the_one_before_stays_and_the_one_before_that_goes() -> None:
    maker = Maker()
    two = Generations(maker)
    for key in ("a", "b", "a", "c"):
        two.get(key)
    assert [two.there(key) for key in "abc"] == ["aa", None, "cc"]
    assert maker.made == ["a", "b", "c"]


def test_what_requests_ask_for_does_not_go() -> None:
    two = Generations(Maker())
    for key in ("a", "b"):
        two.get(key)
    assert two.there("a") == "aa"
    two.get("c")
    assert [two.there(key) for key in "abc"] == ["aa", None, "cc"]


def test_what_failed_is_tried_again_and_costs_nothing_that_works() -> None:
    maker = Maker()
    two = Generations(maker)
    two.get("a")
    maker.bad = {"b"}
    with pytest.raises(OSError, match="b"):
        two.get("b")
    assert (two.there("a"), two.there("b")) == ("aa", None)
    maker.bad.clear()
    assert two.get("b") == "bb"
