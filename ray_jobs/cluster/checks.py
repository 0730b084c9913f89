"""What is looked at before work begins: a check says what is there, or what is missing and the remedy."""

import sys
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from typing import Any, Literal

from ray_jobs.cli import input_error
from stbir.errors import InputError

Check = Callable[
    [], str
]  # what is there; raises InputError for what is missing, DoubtError where work can begin
Level = Literal["ok", "doubt", "missing"]


class DoubtError(InputError):
    """Work can begin, but this may be what it fails of later."""


@dataclass(frozen=True)
class Finding:
    """What a check came to. `remedy` is empty where all is well."""

    check: str
    level: Level
    says: str
    remedy: str = ""

    @property
    def line(self) -> str:
        """The same for a person, in one line."""
        return f"{self.says}; {self.remedy}" if self.remedy else self.says


def look(checks: Iterable[tuple[str, Check]]) -> list[Finding]:
    """Every finding, in order."""
    return [_finding(name, check) for name, check in checks]


def _finding(name: str, check: Check) -> Finding:
    try:
        return Finding(name, "ok", check())
    except InputError as error:
        found = input_error(error) or error
        says, _, remedy = str(found).rpartition("; ")
        return Finding(name, "doubt" if isinstance(found, DoubtError) else "missing", says, remedy)


def demand(checks: Iterable[tuple[str, Check]]) -> None:
    """A job's own part, before it begins: doubts are said on standard error.

    Raises InputError for the first thing that is missing.
    """
    for name, check in checks:
        finding = _finding(name, check)
        if finding.level == "missing":
            raise InputError(finding.line)
        if finding.level == "doubt":
            print(f"{finding.check}: {finding.line}", file=sys.stderr)


def table(findings: list[Finding]) -> str:
    """A line a finding, its remedy below it."""
    width = max(len(finding.check) for finding in findings)
    lines = []
    for finding in findings:
        lines.append(f"{finding.level:<8} {finding.check:<{width}}  {finding.says}")
        lines += [f"{'':<8} {'':<{width}}  → {finding.remedy}"] if finding.remedy else []
    return "\n".join(lines)


def as_dicts(findings: list[Finding]) -> list[dict[str, Any]]:
    """For the last line of standard output."""
    return [asdict(finding) for finding in findings]
