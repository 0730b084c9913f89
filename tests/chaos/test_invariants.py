"""The invariants find a mixed answer, a doubled row and a doubled step."""

from pathlib import Path
from typing import Any

from tests.chaos.invariants import Answer, check_answers, check_captions
from tests.cluster.application import Release
from tests.ray_jobs.chat_server import caption_text
from tests.ray_jobs.test_caption import row, write_shards

RELEASES = {(d, v): Release("c", "g", v, d, frozenset({f"{d}{v}/0"})) for d in "ab" for v in (1, 2)}


def body(digest: str = "a", version: int = 1, photo_id: str = "a1/0") -> dict[str, Any]:
    return {"checkpoint": digest, "gallery_version": version, "hits": [{"photo_id": photo_id}]}


def test_answers_of_one_release_pass() -> None:
    answers = [Answer(200, body()), Answer(200, body("b", 2, "b2/0")), Answer(503, {})]
    assert check_answers(answers, RELEASES, [503]) == []


def test_mixed_and_unexpected_answers_are_found() -> None:
    for mixed in (body(version=2), body(digest="b"), body(photo_id="a2/0"), body(version=3)):
        [violation] = check_answers([Answer(200, mixed)], RELEASES, [503])
        assert "no single release" in violation
    found = check_answers([Answer(500, "internal"), Answer(503, {})], RELEASES, [503])
    assert found == ["no search was answered", "unexpected answers: {500: 'internal'}"]


def captioned(folder: Path, numbers: list[int]) -> str:
    rows = [row(number, caption_text(number), "model") for number in numbers]
    return write_shards(folder, rows)


def test_doubled_and_missing_captions_are_found(tmp_path: Path) -> None:
    for name, numbers in {"doubled": [0, 1, 1], "missing": [0, 1]}.items():
        violations = check_captions(captioned(tmp_path / name, numbers), 3, calls=4, max_calls=3)
        assert "captions are missing, doubled or of another photo" in violations
        assert any(violation.startswith("4 answers were paid for") for violation in violations)
