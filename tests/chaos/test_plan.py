"""The plan of the faults, and the checks of the answers."""

from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.chaos.plan import FAULTS, SKIPPED, Step, draw_steps
from tests.chaos.run import Line, run_steps


@dataclass
class Shown:
    violations: list[str] = field(default_factory=list)
    is_injected: bool = True


@given(seed=st.integers(), count=st.integers(0, 3 * len(FAULTS)))
def test_plan_is_deterministic_and_repeats_no_fault_before_all_are_drawn(seed: int, count: int) -> None:
    steps = draw_steps(seed, count)
    assert steps == draw_steps(seed, count)
    assert [step.number for step in steps] == list(range(count))
    first = [step.fault for step in steps[: len(FAULTS)]]
    assert len(set(first)) == len(first)
    assert {step.fault for step in steps} <= set(FAULTS)


def test_plans_of_two_seeds_differ() -> None:
    assert draw_steps(1, 20) != draw_steps(2, 20)


def test_no_fault_is_run_and_skipped() -> None:
    assert not SKIPPED.keys() & set(FAULTS)


@given(seed=st.integers(), count=st.integers(0, 10))
def test_listed_steps_are_run_or_skipped(seed: int, count: int) -> None:
    def scenario(step: Step) -> Shown:
        if step.number % 4 == 0:
            raise ValueError("broken")
        if step.number % 4 == 1:
            pytest.fail("it did not happen")
        return Shown(is_injected=step.number % 4 == 2)

    lines: list[Line] = []
    names = ("train", "embed_gallery", "caption", "serve")
    summary = run_steps(draw_steps(seed, count), dict.fromkeys(names, scenario), lines.append)
    assert summary == lines.pop()
    assert summary["listed"] == len(lines) == summary["run"] + summary["skipped"]
    assert summary["run"] == summary["passed"] + summary["failed"] == count - count // 4
    assert summary["passed"] == (count + 1) // 4
    assert all(line["reason"] for line in lines if line["result"] == "skipped")
    assert all(line["violations"] for line in lines if line["result"] == "failed")
