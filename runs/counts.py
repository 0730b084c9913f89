"""Checks the counts of a data set: `counts.py SUMMARY photos=N sketches=N`.

SUMMARY is a file that ends with the last output line of prepare_shards.py. Exit code 2 if a count differs.
"""

import json
import sys
from pathlib import Path


def differences(summary: str, expected: list[str]) -> list[str]:
    """One line for each `NAME=N` that differs from the counts of the summary."""
    counts = json.loads(summary.strip().splitlines()[-1])["counts"]
    pairs = [(name, int(number)) for name, _, number in (each.partition("=") for each in expected)]
    return [f"{name}: {counts[name]}, not {number}" for name, number in pairs if counts[name] != number]


def main(arguments: list[str]) -> int:
    """Print the differences; the exit code."""
    lines = differences(Path(arguments[0]).read_text(), arguments[1:])
    for line in lines:
        print(f"counts.py: {line}; see docs/data.md", file=sys.stderr)
    return 2 if lines else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
