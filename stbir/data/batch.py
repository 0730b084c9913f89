"""From planned samples to arrays: read the encoded pictures, decode, move, corrupt; uint8 to the end."""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from PIL import Image

from stbir.augmentation.curriculum_noise import corrupt_photo, corrupt_sketch, drop_words
from stbir.augmentation.query_corruption import distort_sketch, distort_text
from stbir.config import Augmentation
from stbir.data.image_cache import Squares
from stbir.data.photo_index import Ints, Photos
from stbir.data.sampling import Step
from stbir.data.shards import open_shards
from stbir.images import Geometry, Pixels, photo_square, sketch_square, viewed

# Of decoded pictures of each kind: in a decoding process, and in those of a machine together.
KEPT_BYTES, KEPT_BYTES_IN_ALL = 2**28, 2**31
Levels = NDArray[np.float64]
Groups = dict[int, pa.Table]


@dataclass(frozen=True)
class Encoded:
    """The samples of one worker's step with encoded pictures. A modality not needed is an empty list.

    Each sample is followed by its K drawn negatives, so there are N = n·(1 + K) rows: `photo` (N,) indexes
    `Photos`, `sketch` (N,) the photo's sketches, `position` (N,) counts samples of the stage and seeds
    everything random about the row.
    """

    stage: int
    number: int
    rows_a_sample: int
    photo: Ints
    sketch: Ints
    position: Ints
    sketches: list[bytes]
    photos: list[bytes]
    texts: list[str]


@dataclass(frozen=True)
class Batch:
    """What a worker's step `number` of a stage sees; `photo` and `sketch` (N,) as in `Encoded`.

    `sketches` (N, 1, H, W) and `photos` (N, 3, H, W) uint8, N `texts`, N = n·(1 + K) as in `Encoded`;
    None where not needed.
    """

    stage: int
    number: int
    rows_a_sample: int
    photo: Ints
    sketch: Ints
    sketches: Pixels | None
    photos: Pixels | None
    texts: list[str] | None


def places_of(photos: Photos, steps: Sequence[Step]) -> list[int]:
    """The row groups that the steps draw from."""
    drawn = [np.concatenate([s.order.photo, s.order.hard_negatives.ravel()]) for s in steps]
    used = np.unique(np.concatenate(drawn))
    return [int(p) for p in np.unique(photos.place[used])]


def read_places(photos: Photos, places: Sequence[int], modalities: Collection[str]) -> Groups:
    """Read row groups, only the columns the modalities need."""
    columns = [name for name, m in (("photo", "photo"), ("sketches", "sketch")) if m in modalities]
    if not columns:
        return {}
    shards = {uri: open_shards(uri) for uri in {photos.places[place][0] for place in places}}
    groups: Groups = {}
    for place in places:
        uri, file, group = photos.places[place]
        groups[place] = shards[uri].read_group(file, group, columns)
    return groups


def encoded(
    photos: Photos, step: Step, modalities: Sequence[str], groups: Groups, part: slice = slice(None)
) -> Encoded:
    """The encoded samples of a part of a step (a worker's share)."""
    order = step.order[part]
    rows = np.concatenate([order.photo[:, None], order.hard_negatives], axis=1).ravel()
    a_sample = 1 + order.hard_negatives.shape[1]
    first = step.first + (part.start or 0)
    # Of a drawn negative, the sketch of the same number, modulo how many it has.
    sketch = np.repeat(order.sketch, a_sample) % np.maximum(photos.sketches[rows], 1)
    return Encoded(
        stage=step.stage,
        number=step.number,
        rows_a_sample=a_sample,
        photo=rows,
        sketch=sketch,
        position=first + np.repeat(np.arange(len(order.photo)), a_sample),
        sketches=_sketches(photos, sketch, rows, groups) if "sketch" in modalities else [],
        photos=[_cell(photos, row, groups, "photo") for row in rows] if "photo" in modalities else [],
        texts=[photos.texts[row] or "" for row in rows] if "text" in modalities else [],
    )


def _sketches(photos: Photos, sketch: Ints, rows: Ints, groups: Groups) -> list[bytes]:
    return [_cell(photos, row, groups, "sketches", int(n)) for row, n in zip(rows, sketch, strict=True)]


def _cell(photos: Photos, photo: int, groups: Groups, column: str, item: int | None = None) -> bytes:
    cell = groups[int(photos.place[photo])][column][int(photos.row[photo])]
    return bytes((cell if item is None else cell[item]).as_py())


def decoded(
    rows: Encoded,
    *,
    sketch_size: int,
    photo_size: int,
    seed: int,
    augment: Augmentation | None = None,
    sketch_noise: tuple[Levels, Levels] | None = None,
    photo_noise: tuple[Levels, Levels] | None = None,
    text_noise: tuple[Levels, Levels] | None = None,
    poor: bool = False,
) -> Batch:
    """Decode a worker's step. Noise is (probability, strength) a row; None leaves that modality clean.

    That of texts makes poor captions of them, and with `poor` that of sketches poor drawings
    (`augmentation.query_corruption`), not the reference's noise.
    """
    dice = [
        np.random.default_rng((seed, rows.stage, int(position), row % rows.rows_a_sample))
        for row, position in enumerate(rows.position)
    ]
    views = [_views(augment, rng) for rng in dice]
    texts = rows.texts
    if augment and texts:
        texts = [drop_words(text, augment.word_dropout, rng) for text, rng in zip(texts, dice, strict=True)]
    if text_noise and texts:
        texts = _corrupted(texts, _poor_text, dice, text_noise)
    kind = POOR_SKETCH if poor else SKETCH
    return Batch(
        stage=rows.stage,
        number=rows.number,
        rows_a_sample=rows.rows_a_sample,
        photo=rows.photo,
        sketch=rows.sketch,
        sketches=_pictures(rows.sketches, sketch_size, [v[0] for v in views], dice, kind, sketch_noise),
        photos=_pictures(rows.photos, photo_size, [v[1] for v in views], dice, PHOTO, photo_noise),
        texts=texts or None,
    )


Item = TypeVar("Item", Pixels, str)


def _poor_sketch(sketch: Pixels, most: float, rng: np.random.Generator) -> Pixels:
    return distort_sketch(sketch, most * rng.random(), rng)


def _poor_text(text: str, most: float, rng: np.random.Generator) -> str:
    return distort_text(text, most * rng.random(), rng)


_kept_photo = Squares(photo_square, KEPT_BYTES, KEPT_BYTES_IN_ALL)
_kept_sketch = Squares(sketch_square, KEPT_BYTES, KEPT_BYTES_IN_ALL)
Open = Callable[[bytes, int], Image.Image]
Corrupt = Callable[[Pixels, float, np.random.Generator], Pixels]
SKETCH: tuple[Open, Corrupt] = (_kept_sketch, corrupt_sketch)
POOR_SKETCH: tuple[Open, Corrupt] = (_kept_sketch, _poor_sketch)
PHOTO: tuple[Open, Corrupt] = (_kept_photo, corrupt_photo)


def _pictures(
    pictures: list[bytes],
    size: int,
    views: list[Geometry | None],
    dice: list[np.random.Generator],
    kind: tuple[Open, Corrupt],
    noise: tuple[Levels, Levels] | None,
) -> Pixels | None:
    if not pictures:
        return None
    open_, corrupt = kind
    out = [viewed(open_(data, size), view) for data, view in zip(pictures, views, strict=True)]
    return np.stack(_corrupted(out, corrupt, dice, noise) if noise else out)


def _corrupted(
    clean: list[Item],
    corrupt: Callable[[Item, float, np.random.Generator], Item],
    dice: list[np.random.Generator],
    noise: tuple[Levels, Levels],
) -> list[Item]:
    return [
        corrupt(item, float(strength), rng) if rng.random() < probability else item
        for item, rng, probability, strength in zip(clean, dice, *noise, strict=True)
    ]


def _views(augment: Augmentation | None, rng: np.random.Generator) -> tuple[Geometry | None, Geometry | None]:
    """A view for the sketch and one for the photo: flipped together, otherwise moved apart."""
    if augment is None:
        return None, None
    flip = bool(augment.flip and rng.random() < 0.5)
    return _view(augment, 1.0, flip, rng), _view(augment, augment.photo_ratio, flip, rng)


def _view(augment: Augmentation, share: float, flip: bool, rng: np.random.Generator) -> Geometry:
    scale, stretch, dx, dy, angle = rng.uniform(-1, 1, 5) * share
    return Geometry(
        flip=flip,
        scale=1 + augment.scale * scale,
        stretch=1 + augment.scale / 2 * stretch,
        shift=(augment.shift * dx, augment.shift * dy),
        rotate=augment.rotate * angle,
    )
