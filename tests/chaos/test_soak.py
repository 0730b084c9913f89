"""The record of a soak finds errors that no kill explains, wrong answers and growing memory."""

import json
from pathlib import Path

from tests.chaos.soak_record import Record, Search, plot, write_log

KILL = (10.0, "TextReplica")


def record(searches: list[Search], growth: float = 1.0) -> Record:
    mib = [(float(n), 1000 * (growth if n >= 6 else 1)) for n in range(8)]
    return Record(searches=searches, kills=[KILL], deploys=[(4.0, 9.0, 2)], mib=mib)


ANSWERED = Search(1.0, 1.1, 200, is_wrong=False)
IN_FLIGHT = Search(9.9, 10.5, 503, is_wrong=False)


def test_an_error_in_flight_at_a_kill_passes() -> None:
    summary = record([ANSWERED, IN_FLIGHT]).summary(rate=5)
    assert summary["reasons"] == []
    assert summary["statuses"] == {200: 1, 503: 1}


def test_other_errors_are_found() -> None:
    for search in (Search(10.1, 10.2, 503, is_wrong=False), Search(3, 4, 0, is_wrong=False)):
        assert record([ANSWERED, search]).summary(5)["reasons"] == [
            "1 errors of searches that no kill explains"
        ]


def test_wrong_answers_and_growth_are_found() -> None:
    [wrong, growth] = record([Search(1, 2, 200, is_wrong=True)], growth=1.2).summary(5)["reasons"]
    assert (wrong, growth) == ("1 wrong answers", "memory x 1.200")


def test_nothing_sent_does_not_pass() -> None:
    empty = Record(mib=[(0.0, 1.0)] * 4).summary(5)["reasons"]
    assert empty == ["no search was answered", "no replica was killed", "no release was deployed"]


def test_the_log_has_events_in_order_and_the_plot_is_drawn(tmp_path: Path) -> None:
    run = record([ANSWERED, IN_FLIGHT])
    write_log(run, tmp_path / "log.jsonl")
    plot(run, tmp_path / "soak.png")
    events = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert [each["at"] for each in events] == sorted(each["at"] for each in events)
    assert {"at": 10.0, "killed": "TextReplica"} in events
    assert any(each.get("status") == 503 for each in events)
    assert (tmp_path / "soak.png").read_bytes().startswith(b"\x89PNG")
