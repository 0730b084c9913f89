"""A sheet of photos with their new captions, for a person to approve; the same as JSON for programs."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import jinja2
from PIL import ImageColor

from stbir.augmentation.text_corruption import SHADE_OF
from stbir.captioning.agreement import Named, agreement
from stbir.captioning.caption import Caption
from stbir.captioning.estimate import Estimate, lasting

TEMPLATE = "sheet.html.j2"
# What CSS calls brown is red.
_PLAIN = {"brown": "saddlebrown"}
_TONES = {"light": "white", "pale": "white", "dark": "black", "deep": "black"}


@dataclass(frozen=True)
class Shown:
    """One photo of the sheet. `picture` is a data URI; without a caption, `fault` says why."""

    photo_id: str
    picture: str | None
    caption: Caption | None
    given: str | None
    fault: str | None = None
    asked: int = 1


@dataclass(frozen=True)
class Sheet:
    """What a sample came to. `rest`: what the other photos will take; `cost`: of the sample itself."""

    model: str
    prompt: str
    shards: str
    shown: Sequence[Shown]
    rest: Estimate
    cost: float | None = None
    agreement: dict[str, Named] = field(init=False)

    def __post_init__(self) -> None:
        pairs = [(each.given, each.caption.text) for each in self.shown if each.given and each.caption]
        object.__setattr__(self, "agreement", agreement(pairs))

    def as_dict(self) -> dict[str, Any]:
        """For `json.dumps`, without the pictures."""
        return {
            **{name: getattr(self, name) for name in ("model", "prompt", "shards", "cost", "agreement")},
            "rest": asdict(self.rest),
            "captions": [_plain(each) for each in self.shown],
        }

    def html(self) -> str:
        """The page, self-contained."""
        loader = jinja2.PackageLoader("stbir.captioning", ".")
        pages = jinja2.Environment(loader=loader, autoescape=True, undefined=jinja2.StrictUndefined)
        return pages.get_template(TEMPLATE).render(sheet=self, swatch=swatch, lasting=lasting)


def _plain(shown: Shown) -> dict[str, Any]:
    text = shown.caption.text if shown.caption else None
    caption = asdict(shown.caption) if shown.caption else None
    return {
        "photo_id": shown.photo_id,
        "text": text,
        "caption": caption,
        "given": shown.given,
        "fault": shown.fault,
    }


def swatch(colour: str) -> str:
    """A colour's words as a value of CSS: by its own name where CSS has it, lighter or darker; else its basic
    colour, `transparent` where it has none."""
    words = colour.split()
    named = next((word for word in reversed(words) if word in SHADE_OF), None)
    if named is None:
        return "transparent"
    plain = named if named in ImageColor.colormap else SHADE_OF[named]
    plain = _PLAIN.get(plain, plain)
    tone = next((_TONES[word] for word in words if word in _TONES), None)
    return plain if tone is None else f"color-mix(in srgb, {plain} 55%, {tone})"
