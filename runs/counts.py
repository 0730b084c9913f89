"""Whether a data set has as many photos and sketches as it should: `counts.py SUMMARY photos=N sketches=N`.

SUMMARY is a file whose last line is what prepare_shards.py printed last. Exit code 2 where a count differs.
"""

import json
import sys
from pathlib import Path


def differences(summary: str, expected: list[str]) -> list[str]:
    """A line for each `NAME=N` that the counts of the summary do not bear out."""
    counts = json.loads(summary.strip().splitlines()[-1])["counts"]
    wanted = [(name, int(number)) for name, _, number in (each.partition("=") for each in expected)]
    return [f"{name}: {counts[name]}, not {number}" for name, number in wanted if counts[name] != number]


def main(arguments: list[str]) -> int:
    """Print what differs; the exit code."""
    found = differences(Path(arguments[0]).read_text(), arguments[1:])
    for line in found:
        print(f"counts.py: {line}; see docs/data.md", file=sys.stderr)
    return 2 if found else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
