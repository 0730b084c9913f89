"""Checks that run before a job: each returns what it found or raises an error that names the remedy."""

import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Literal

from ray_jobs.cli import input_error
from stbir.errors import InputError

# Returns a description. Raises InputError if something is missing, CheckWarningError if the job can start.
Check = Callable[[], str]
Level = Literal["ok", "warning", "missing"]


class CheckWarningError(InputError):
    """The job can start, but may fail later for this reason."""


@dataclass(frozen=True)
class CheckResult:
    """Result of one check. `remedy` is empty if the level is "ok"."""

    check: str
    level: Level
    message: str
    remedy: str = ""

    @property
    def line(self) -> str:
        """Message and remedy in one line."""
        return f"{self.message}; {self.remedy}" if self.remedy else self.message

    def as_dict(self) -> dict[str, Any]:
        """The result as JSON."""
        return {"check": self.check, "level": self.level, "says": self.message, "remedy": self.remedy}


def run_checks(checks: Iterable[tuple[str, Check]]) -> list[CheckResult]:
    """Run all checks, in order."""
    return [_run_check(name, check) for name, check in checks]


def _run_check(name: str, check: Check) -> CheckResult:
    try:
        return CheckResult(name, "ok", check())
    except InputError as raised:
        error = input_error(raised) or raised
        message, separator, remedy = str(error).rpartition("; ")
        level: Level = "warning" if isinstance(error, CheckWarningError) else "missing"
        return CheckResult(name, level, message, remedy) if separator else CheckResult(name, level, remedy)


def enforce(checks: Iterable[tuple[str, Check]]) -> None:
    """Run a job's checks before it starts, and print warnings on standard error.

    Raises InputError for the first check whose result is "missing".
    """
    for name, check in checks:
        result = _run_check(name, check)
        if result.level == "missing":
            raise InputError(result.line)
        if result.level == "warning":
            print(f"{result.check}: {result.line}", file=sys.stderr)


def table(results: list[CheckResult]) -> str:
    """Format results as a text table: one line per check, and below it the remedy if there is one."""
    width = max(len(result.check) for result in results)
    lines = []
    for result in results:
        lines.append(f"{result.level:<8} {result.check:<{width}}  {result.message}")
        lines += [f"{'':<8} {'':<{width}}  → {result.remedy}"] if result.remedy else []
    return "\n".join(lines)
