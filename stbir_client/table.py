"""Columns that line up in a terminal, also where characters are two cells wide."""

import unicodedata
from collections.abc import Sequence

from stbir_client.answer import Answer, Info
from stbir_client.line import one_line

HEAD = ("rank", "score", "category", "photo")
GAP = "  "


def hit_lines(answer: Answer) -> list[str]:
    """A heading and a line a hit."""
    hits = enumerate(answer.hits, start=1)
    rows = [(str(rank), f"{hit.score:.3f}", hit.category, hit.photo_id) for rank, hit in hits]
    return aligned([HEAD, *rows], right=(0, 1))


def info_lines(info: Info) -> list[str]:
    """A line a fact."""
    gallery = info.gallery
    facts = {
        **{f"model {name}": value for name, value in info.model.items()},
        "gallery version": gallery.version if gallery else "none is published",
        **({"photos": gallery.count, "categories": ", ".join(gallery.categories)} if gallery else {}),
        "search by": ", ".join(info.queries),
        **{f"limit {name}": value for name, value in info.limits.items()},
    }
    return aligned([(name, str(value)) for name, value in facts.items()])


def aligned(rows: Sequence[Sequence[str]], right: Sequence[int] = ()) -> list[str]:
    """The rows as lines, their cells padded to the widest of their column; those in `right` on the left."""
    cells = [[one_line(cell) for cell in row] for row in rows]
    widths = [max(map(width, column)) for column in zip(*cells, strict=True)]
    return [GAP.join(_padded(row, widths, right)).rstrip() for row in cells]


def width(text: str) -> int:
    """How many cells of a terminal a text takes."""
    return sum(map(_cells, text))


def _cells(character: str) -> int:
    if unicodedata.combining(character):
        return 0
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1


def _padded(row: Sequence[str], widths: Sequence[int], right: Sequence[int]) -> list[str]:
    spaces = [" " * (most - width(cell)) for cell, most in zip(row, widths, strict=True)]
    return [
        space + cell if place in right else cell + space
        for place, (cell, space) in enumerate(zip(row, spaces, strict=True))
    ]
