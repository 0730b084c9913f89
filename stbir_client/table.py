"""Tables for the terminal, with aligned columns; wide characters count as two cells."""

import unicodedata
from collections.abc import Sequence

from stbir_client.answer import Answer, Gallery, Hit, Info
from stbir_client.line import one_line

HEADER = ("rank", "score", "category", "photo", "text")
SEPARATOR = "  "
MAX_TEXT_LENGTH = 60


def format_hits(answer: Answer) -> list[str]:
    """A header and one line per hit; "(+2)" after a photo counts its near-duplicates. The text column is
    omitted if no hit has a text."""
    hits = enumerate(answer.hits, start=1)
    rows = [(str(n), f"{hit.score:.3f}", hit.category, _photo(hit), _short_text(hit)) for n, hit in hits]
    columns = len(HEADER) if any(hit.text for hit in answer.hits) else len(HEADER) - 1
    return align([row[:columns] for row in (HEADER, *rows)], right=(0, 1))


def format_info(info: Info) -> list[str]:
    """One line per fact."""
    gallery = info.gallery
    facts = {
        **{f"model {name}": value for name, value in info.model.items()},
        "gallery version": gallery.version if gallery else "none published",
        **(_gallery_facts(gallery) if gallery else {}),
        "search by": ", ".join(info.queries),
        **{f"limit {name}": value for name, value in info.limits.items()},
    }
    return align([(name, str(value)) for name, value in facts.items()])


def _gallery_facts(gallery: Gallery) -> dict[str, object]:
    columns = {f"column {name}": arrow_type for name, arrow_type in gallery.columns.items()}
    return {"photos": gallery.count, "categories": ", ".join(gallery.categories), **columns}


def _photo(hit: Hit) -> str:
    return hit.photo_id if hit.count == 1 else f"{hit.photo_id} (+{hit.count - 1})"


def _short_text(hit: Hit) -> str:
    text = one_line(hit.text or "")
    return text if len(text) <= MAX_TEXT_LENGTH else f"{text[: MAX_TEXT_LENGTH - 1].rstrip()}…"


def align(rows: Sequence[Sequence[str]], right: Sequence[int] = ()) -> list[str]:
    """The rows as lines of equal column widths. `right`: indices of right-aligned columns."""
    cells = [[one_line(cell) for cell in row] for row in rows]
    widths = [max(map(display_width, column)) for column in zip(*cells, strict=True)]
    return [SEPARATOR.join(_pad(row, widths, right)).rstrip() for row in cells]


def display_width(text: str) -> int:
    """The number of terminal cells of a text."""
    return sum(map(_character_width, text))


def _character_width(character: str) -> int:
    if unicodedata.combining(character):
        return 0
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1


def _pad(row: Sequence[str], widths: Sequence[int], right: Sequence[int]) -> list[str]:
    padding = [" " * (width - display_width(cell)) for cell, width in zip(row, widths, strict=True)]
    return [
        spaces + cell if column in right else cell + spaces
        for column, (cell, spaces) in enumerate(zip(row, padding, strict=True))
    ]
