"""Review sheet of sampled photos with their new captions: an HTML page and the same content as JSON."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import jinja2
from PIL import ImageColor

from stbir.augmentation.text_corruption import BASIC_COLOUR
from stbir.captioning.agreement import Agreement, measure_agreement
from stbir.captioning.caption import Caption
from stbir.captioning.estimate import Estimate, format_duration

TEMPLATE = "sheet.html.j2"
_CSS_NAMES = {"brown": "saddlebrown"}  # brown in CSS is a red
_TONES = {"light": "white", "pale": "white", "dark": "black", "deep": "black"}


@dataclass(frozen=True)
class SheetEntry:
    """One photo of the sheet. `image` is a data URI; `fault` is the reason for a missing caption."""

    photo_id: str
    image: str | None
    caption: Caption | None
    reference: str | None
    fault: str | None = None
    answer_count: int = 1


@dataclass(frozen=True)
class Sheet:
    """A captioned sample. `remaining` estimates the other photos; `cost` is that of the sample."""

    model: str
    prompt: str
    shards: str
    entries: Sequence[SheetEntry]
    remaining: Estimate
    cost: float | None = None
    agreement: dict[str, Agreement] = field(init=False)

    def __post_init__(self) -> None:
        pairs = [(e.reference, e.caption.text) for e in self.entries if e.reference and e.caption]
        object.__setattr__(self, "agreement", measure_agreement(pairs))

    def as_dict(self) -> dict[str, Any]:
        """The sheet as JSON, without the images."""
        return {
            **{name: getattr(self, name) for name in ("model", "prompt", "shards", "cost", "agreement")},
            "rest": asdict(self.remaining),
            "captions": [_entry_dict(entry) for entry in self.entries],
        }

    def html(self) -> str:
        """The sheet as a self-contained page."""
        loader = jinja2.PackageLoader("stbir.captioning", ".")
        pages = jinja2.Environment(loader=loader, autoescape=True, undefined=jinja2.StrictUndefined)
        pages.globals |= {"css_colour": css_colour, "format_duration": format_duration}
        return pages.get_template(TEMPLATE).render(sheet=self)


def _entry_dict(entry: SheetEntry) -> dict[str, Any]:
    return {
        "photo_id": entry.photo_id,
        "text": entry.caption.text if entry.caption else None,
        "caption": asdict(entry.caption) if entry.caption else None,
        "given": entry.reference,
        "fault": entry.fault,
    }


def css_colour(phrase: str) -> str:
    """Return the CSS value of a colour phrase such as "light navy"; `transparent` if it is unknown."""
    tokens = phrase.split()
    name = next((token for token in reversed(tokens) if token in BASIC_COLOUR), None)
    if name is None:
        return "transparent"
    colour = name if name in ImageColor.colormap else BASIC_COLOUR[name]
    colour = _CSS_NAMES.get(colour, colour)
    tone = next((_TONES[token] for token in tokens if token in _TONES), None)
    return colour if tone is None else f"color-mix(in srgb, {colour} 55%, {tone})"
