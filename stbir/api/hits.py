"""The hits of a search, and their display as a grid of thumbnails."""

import base64
import html
import io
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import overload

from PIL import Image, ImageDraw

_TILE, _LABEL, _GAP = 192, 34, 8  # pixels
_MAX_LABEL = 30  # characters


@dataclass(frozen=True)
class Hit:
    """A found photo. `score`: cosine with the query, at most 1. `uri`: None if the photo has no own file.

    `match`: the probability that it is the photo meant; None if it is unknown (`PhotoGallery.search`).
    `count`: the photos that this hit stands for, itself included; `duplicates`: ids of up to 100 others.
    """

    photo_id: str
    score: float
    category: str
    caption: str | None = None
    uri: str | None = None
    count: int = 1
    duplicates: tuple[str, ...] = ()
    match: float | None = None


class Hits:
    """The hits of one query, best first. A notebook shows them with thumbnails."""

    def __init__(self, hits: Sequence[Hit], thumbnail: Callable[[str], bytes | None]) -> None:
        """`thumbnail` returns the JPEG of a photo id, or None."""
        self._hits, self._thumbnail = list(hits), thumbnail

    def __len__(self) -> int:
        return len(self._hits)

    def __iter__(self) -> Iterator[Hit]:
        return iter(self._hits)

    @overload
    def __getitem__(self, index: int) -> Hit: ...
    @overload
    def __getitem__(self, index: slice) -> "Hits": ...
    def __getitem__(self, index: int | slice) -> "Hit | Hits":
        if isinstance(index, slice):
            return Hits(self._hits[index], self._thumbnail)
        return self._hits[index]

    def __repr__(self) -> str:
        lines = (f"{n:3}  {hit.score:6.3f}  {hit.photo_id}" for n, hit in enumerate(self._hits, 1))
        return "\n".join([f"{len(self)} hits", *lines])

    def show(self, columns: int = 5) -> Image.Image:
        """The grid as an image, which a notebook displays; a script calls `hits.show().save("hits.png")`."""
        columns = max(1, min(columns, len(self)))
        num_rows = max(1, -(-len(self) // columns))
        width, height = columns * (_TILE + _GAP) + _GAP, num_rows * (_TILE + _LABEL + _GAP) + _GAP
        grid = Image.new("RGB", (width, height), "white")
        for n, hit in enumerate(self._hits):
            row, column = divmod(n, columns)
            left, top = _GAP + column * (_TILE + _GAP), _GAP + row * (_TILE + _LABEL + _GAP)
            self._draw(grid, hit, f"{n + 1}  {hit.score:.3f}", left, top)
        return grid

    def _draw(self, grid: Image.Image, hit: Hit, title: str, left: int, top: int) -> None:
        draw = ImageDraw.Draw(grid)
        if data := self._thumbnail(hit.photo_id):
            with Image.open(io.BytesIO(data), formats=("JPEG",)) as image:
                grid.paste(image, (left + (_TILE - image.width) // 2, top + (_TILE - image.height) // 2))
        label = hit.photo_id[-_MAX_LABEL:].encode("ascii", "replace").decode()
        draw.text((left, top + _TILE + 2), f"{title}\n{label}", fill="black")

    def _repr_html_(self) -> str:
        """What a notebook displays."""
        return (
            f'<div style="display:flex;flex-wrap:wrap;gap:8px">{"".join(map(self._figure, self._hits))}</div>'
        )

    def _figure(self, hit: Hit) -> str:
        data = base64.b64encode(self._thumbnail(hit.photo_id) or b"").decode()
        caption = html.escape(hit.caption or hit.photo_id)
        return (
            f'<figure style="margin:0;width:{_TILE}px">'
            f'<img alt="{caption}" title="{html.escape(hit.photo_id)}" src="data:image/jpeg;base64,{data}">'
            f"<figcaption>{hit.score:.3f} {caption}</figcaption></figure>"
        )
