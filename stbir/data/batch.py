"""Batches: samples of a step with encoded images, and the same decoded, augmented and corrupted (uint8)."""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from types import MappingProxyType
from typing import TypeVar

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from PIL import Image

from stbir.augmentation.curriculum_noise import add_photo_noise, add_sketch_noise, apply_word_dropout
from stbir.augmentation.query_corruption import corrupt_sketch, corrupt_text
from stbir.augmentation.stroke_augmentation import draw_augmented
from stbir.config import MODALITIES, MODALITY_OF, Augmentation, Modality, Preprocess, View
from stbir.data.geometry import sample_geometry, view_geometry
from stbir.data.image_cache import ImageCache
from stbir.data.photo_index import IntArray, PhotoIndex
from stbir.data.sampling import Step
from stbir.data.shards import open_shards
from stbir.data.strokes import decode_strokes, is_strokes
from stbir.images import Geometry, Pixels, open_photo, open_sketch, to_pixels

# Each process has one cache for photos and one for sketches.
_CACHE_BYTES = 2**28
_open_photo, _open_sketch = ImageCache(open_photo, _CACHE_BYTES), ImageCache(open_sketch, _CACHE_BYTES)

RowNoise = tuple[NDArray[np.float64], NDArray[np.float64]]  # probability and strength of each row
RowGroups = dict[int, pa.Table]
Item = TypeVar("Item", Pixels, str)
Corrupt = Callable[[Item, float, np.random.Generator], Item]


@dataclass(frozen=True)
class EncodedBatch:
    """One worker's samples of a step with encoded images. A modality that is not needed is an empty list.

    Each sample is followed by its K hard negatives: N = n·(1 + K) rows; n images of a modality that is not
    one of the candidates. `photo` (N,) indexes `PhotoIndex`, `sketch` (N,) the sketches of that photo.
    `position` (N,) is the sample's position in the stage; it seeds the row's random numbers.
    """

    stage: int
    number: int
    rows_per_sample: int
    photo: IntArray
    sketch: IntArray
    position: IntArray
    sketches: list[bytes]
    photos: list[bytes]
    texts: list[str]
    other_sketches: list[bytes] = field(default_factory=list)  # of view "other_sketch"


@dataclass(frozen=True)
class Batch:
    """One worker's decoded samples of step `number` of a stage. `photo` and `sketch` as in `EncodedBatch`.

    `sketches` (N, 1, H, W) and `photos` (N, 3, H, W) are uint8. A modality that is not needed is None.
    `views` have the shape of their modality. A modality that is not one of the candidates has n rows.
    """

    stage: int
    number: int
    rows_per_sample: int
    photo: IntArray
    sketch: IntArray
    sketches: Pixels | None
    photos: Pixels | None
    texts: list[str] | None
    views: dict[View, Pixels] = field(default_factory=dict)


def list_row_groups(photos: PhotoIndex, steps: Sequence[Step]) -> list[int]:
    """The row groups that hold the samples of the steps, sorted."""
    samples = [np.concatenate([s.order.photo, s.order.hard_negatives.ravel()]) for s in steps]
    return [int(group) for group in np.unique(photos.row_group[np.unique(np.concatenate(samples))])]


def read_row_groups(photos: PhotoIndex, groups: Sequence[int], modalities: Collection[str]) -> RowGroups:
    """Read the image columns of the modalities from row groups; "strokes" is a column that some lack."""
    by_modality = (("photo", "photo"), ("sketches", "sketch"), ("strokes", "strokes"))
    columns = [name for name, modality in by_modality if modality in modalities]
    if not columns:
        return {}
    places = {number: photos.row_groups[number] for number in groups}
    shards = {uri: open_shards(uri) for uri in {uri for uri, _, _ in places.values()}}
    return {n: shards[uri].read_group(file, group, columns) for n, (uri, file, group) in places.items()}


def collate(
    photos: PhotoIndex,
    step: Step,
    inputs: Sequence[str],
    tables: RowGroups,
    part: slice = slice(None),
    candidates: Collection[Modality] = MODALITIES,
) -> EncodedBatch:
    """The encoded samples of a part of a step, one worker's share; `candidates` with their hard negatives."""
    order = step.order[part]
    rows = np.concatenate([order.photo[:, None], order.hard_negatives], axis=1).ravel()
    rows_per_sample = 1 + order.hard_negatives.shape[1]
    start = step.offset + (part.start or 0)
    # A hard negative takes the sketch of the same number, modulo its sketch count.
    count = np.maximum(photos.sketch_count[rows], 1)
    sketch = np.repeat(order.sketch, rows_per_sample) % count
    position = start + np.repeat(np.arange(len(order.photo)), rows_per_sample)
    # Any other sketch in turn; of a photo with a single sketch that one.
    other = (sketch + 1 + position % np.maximum(count - 1, 1)) % count
    sketch_rows, photo_rows = (_rows_of(m, candidates, rows_per_sample) for m in ("sketch", "photo"))

    def encoded_sketches(number: IntArray) -> list[bytes]:
        pairs = zip(rows[sketch_rows], number[sketch_rows], strict=True)
        return [_encoded_sketch(photos, row, int(sketch), tables) for row, sketch in pairs]

    return EncodedBatch(
        stage=step.stage,
        number=step.number,
        rows_per_sample=rows_per_sample,
        photo=rows,
        sketch=sketch,
        position=position,
        sketches=encoded_sketches(sketch) if "sketch" in inputs else [],
        photos=[_cell(photos, row, tables, "photo").as_py() for row in rows[photo_rows] if "photo" in inputs],
        texts=[photos.texts[row] or "" for row in rows] if "text" in inputs else [],
        other_sketches=encoded_sketches(other) if "other_sketch" in inputs else [],
    )


def _rows_of(modality: Modality, candidates: Collection[Modality], rows_per_sample: int) -> slice:
    return slice(None, None, 1 if modality in candidates else rows_per_sample)


def _encoded_sketch(photos: PhotoIndex, row: int, number: int, tables: RowGroups) -> bytes:
    """The strokes of a sketch if they were read and are known, else its image."""
    if "strokes" in tables[int(photos.row_group[row])].column_names:
        strokes = _cell(photos, row, tables, "strokes")
        if strokes.is_valid and strokes[number].is_valid:
            return strokes[number].as_py()  # type: ignore[no-any-return]
    return _cell(photos, row, tables, "sketches")[number].as_py()  # type: ignore[no-any-return]


def _cell(photos: PhotoIndex, photo: int, tables: RowGroups, column: str) -> pa.Scalar:
    return tables[int(photos.row_group[photo])][column][int(photos.row[photo])]


def decode_batch(
    batch: EncodedBatch,
    *,
    sketch: Preprocess,
    photo: Preprocess,
    seed: int,
    augment: Augmentation | None = None,
    noise: Mapping[Modality, RowNoise] = MappingProxyType({}),
    use_query_corruption: bool = False,
    views: Sequence[View] = (),
    candidates: Collection[Modality] = MODALITIES,
) -> Batch:
    """Decode, augment and corrupt a batch. A modality without `noise` stays clean, and so do its views.

    Text noise is always query corruption (`augmentation.query_corruption`). Sketch noise is the reference's
    pixel noise, or query corruption with `use_query_corruption`. `candidates`: as in `collate`.
    """
    rngs = [
        np.random.default_rng((seed, batch.stage, int(position), row % batch.rows_per_sample))
        for row, position in enumerate(batch.position)
    ]
    geometry = [sample_geometry(augment, rng) for rng in rngs]
    texts = batch.texts
    if augment and texts:
        texts = [
            apply_word_dropout(text, augment.word_dropout, rng) for text, rng in zip(texts, rngs, strict=True)
        ]
    # Of all rows, for their random numbers.
    texts = _corrupt_rows(texts, _up_to(corrupt_text), rngs, noise.get("text"))
    add_noise = _up_to(corrupt_sketch) if use_query_corruption else add_sketch_noise
    sketch_rows, photo_rows, text_rows = (_rows_of(m, candidates, batch.rows_per_sample) for m in MODALITIES)

    def decode_sketches(images: list[bytes], geometry: list[Geometry | None]) -> list[Pixels]:
        # There may be no images.
        rows = zip(images, rngs[sketch_rows], geometry[sketch_rows], strict=bool(images))
        pixels = [to_pixels(_open_or_draw(data, sketch, augment, rng), row) for data, rng, row in rows]
        return _corrupt_rows(pixels, add_noise, rngs, noise.get("sketch"), sketch_rows)

    def decode_photos(images: list[bytes], geometry: list[Geometry | None]) -> list[Pixels]:
        rows = zip(images, geometry[photo_rows], strict=bool(images))
        pixels = [to_pixels(_open_photo(data, photo.size, photo.resize), row) for data, row in rows]
        return _corrupt_rows(pixels, add_photo_noise, rngs, noise.get("photo"), photo_rows)

    sketches = decode_sketches(batch.sketches, [of_sketch for of_sketch, _ in geometry])
    photos = decode_photos(batch.photos, [of_photo for _, of_photo in geometry])
    view_pixels: dict[View, Pixels] = {}
    for view in views:
        rows = [view_geometry(view, row, augment, rng) for row, rng in zip(geometry, rngs, strict=True)]
        decode = decode_sketches if MODALITY_OF[view] == "sketch" else decode_photos
        view_pixels[view] = np.stack(decode(_view_images(batch, view), rows))
    return Batch(
        stage=batch.stage,
        number=batch.number,
        rows_per_sample=batch.rows_per_sample,
        photo=batch.photo,
        sketch=batch.sketch,
        sketches=np.stack(sketches) if sketches else None,
        photos=np.stack(photos) if photos else None,
        texts=texts[text_rows] or None,
        views=view_pixels,
    )


def _view_images(batch: EncodedBatch, view: View) -> list[bytes]:
    if view == "other_sketch":
        return batch.other_sketches
    return batch.sketches if MODALITY_OF[view] == "sketch" else batch.photos


def _open_or_draw(
    sketch: bytes, to: Preprocess, augment: Augmentation | None, rng: np.random.Generator
) -> Image.Image:
    if augment and augment.strokes and is_strokes(sketch):
        return draw_augmented(decode_strokes(sketch), to.size, rng, **asdict(augment.strokes))
    return _open_sketch(sketch, to.size, to.resize)


def _corrupt_rows(
    clean: list[Item],
    corrupt: Corrupt[Item],
    rngs: list[np.random.Generator],
    noise: RowNoise | None,
    rows: slice = slice(None),
) -> list[Item]:
    if noise is None or not clean:
        return clean
    probabilities, strengths = (column[rows] for column in noise)
    return [
        corrupt(item, float(strength), rng) if rng.random() < probability else item
        for item, rng, probability, strength in zip(clean, rngs[rows], probabilities, strengths, strict=True)
    ]


def _up_to(corrupt: Corrupt[Item]) -> Corrupt[Item]:
    """The corruption with a random severity up to the given one."""
    return lambda item, max_severity, rng: corrupt(item, max_severity * rng.random(), rng)
