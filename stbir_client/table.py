"""Columns that line up in a terminal, also where characters are two cells wide."""

import unicodedata
from collections.abc import Sequence

from stbir_client.answer import Answer, Gallery, Hit, Info
from stbir_client.line import one_line

HEAD = ("rank", "score", "category", "photo", "text")
GAP = "  "
LONGEST = 60  # characters of a photo's text: the rest would break the line


def hit_lines(answer: Answer) -> list[str]:
    """A heading and a line a hit; the texts of the photos are a column where there are any."""
    hits = enumerate(answer.hits, start=1)
    rows = [(str(rank), f"{hit.score:.3f}", hit.category, hit.photo_id, _short(hit)) for rank, hit in hits]
    columns = len(HEAD) if any(hit.text for hit in answer.hits) else len(HEAD) - 1
    return aligned([row[:columns] for row in (HEAD, *rows)], right=(0, 1))


def info_lines(info: Info) -> list[str]:
    """A line a fact."""
    gallery = info.gallery
    facts = {
        **{f"model {name}": value for name, value in info.model.items()},
        "gallery version": gallery.version if gallery else "none is published",
        **(_gallery_facts(gallery) if gallery else {}),
        "search by": ", ".join(info.queries),
        **{f"limit {name}": value for name, value in info.limits.items()},
    }
    return aligned([(name, str(value)) for name, value in facts.items()])


def _gallery_facts(gallery: Gallery) -> dict[str, object]:
    columns = {f"column {name}": kind for name, kind in gallery.columns.items()}
    return {"photos": gallery.count, "categories": ", ".join(gallery.categories), **columns}


def _short(hit: Hit) -> str:
    text = one_line(hit.text or "")
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 1].rstrip()}…"


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
