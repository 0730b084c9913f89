"""Validation of source entries before they enter the shards: each image is read and decoded once."""

import base64
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from stbir.config import Modality
from stbir.data.schema import Row
from stbir.data.sources.entry import Entry
from stbir.errors import InputError, NoStrokeError
from stbir.images import open_image, read_sketch, require_stroke
from stbir.storage.errors import MISSING_FILE_ERRORS

# A bad sketch excludes its photo only if no readable sketch remains.
NO_STROKE = "sketch has no stroke"
SKETCH_REASONS = ("sketch missing", "sketch does not decode", NO_STROKE)


@dataclass(frozen=True)
class Fault:
    """One row of the quarantine.

    `reason` is one of a few fixed strings; `file` and `detail` are specific to the row. `content` is the
    SHA-256 of the photo's bytes, if it has any.
    """

    photo_id: str
    reason: str
    file: str | None = None
    detail: str | None = None
    content: str | None = None

    @property
    def is_sketch_fault(self) -> bool:
        """Whether the fault excludes a sketch, not the photo."""
        return self.reason in SKETCH_REASONS


def drop_duplicates(entries: Iterable[Entry]) -> tuple[list[Entry], list[Fault]]:
    """The first entry of each id, and a fault for each later one."""
    unique: dict[str, Entry] = {}
    faults: list[Fault] = []
    for entry in entries:
        if entry.photo_id in unique:
            faults.append(Fault(entry.photo_id, "duplicate id", entry.photo, "the first one stays"))
        else:
            unique[entry.photo_id] = entry
    return list(unique.values()), faults


def validate_entry(
    entry: Entry, read: Callable[[str], bytes], required: Iterable[Modality]
) -> tuple[Row | None, list[Fault]]:
    """The row of an entry, or None with at least one fault of the photo.

    Decoding only checks the images; the row keeps the original bytes. Raises InputError if an image cannot
    be read for now, in contrast to one that is missing or damaged.
    """
    if fault := _missing_modality(entry, required):
        return None, [fault]
    photo, fault = _read_image(entry, entry.photo, "photo", read)
    if photo is None:
        return None, [fault] if fault else []
    results = [_read_image(entry, uri, "sketch", read) for uri in entry.sketches]
    sketches = [data for data, _ in results if data is not None]
    strokes = [known for (data, _), known in zip(results, _strokes(entry), strict=True) if data is not None]
    faults = [fault for _, fault in results if fault]
    if "sketch" in required and not sketches:
        return None, [*faults, Fault(entry.photo_id, "no readable sketch", entry.photo)]
    row = _row(entry, photo, sketches)
    return (row | {"strokes": strokes} if any(strokes) else row), faults


def _strokes(entry: Entry) -> list[bytes | None]:
    """The strokes of each sketch of the entry."""
    strokes = entry.strokes or (None,) * len(entry.sketches)
    return [base64.b64decode(known) if known else None for known in strokes]


def _missing_modality(entry: Entry, required: Iterable[Modality]) -> Fault | None:
    if "sketch" in required and not entry.sketches:
        return Fault(entry.photo_id, "no sketch", entry.photo)
    if "text" in required and not (entry.text or "").strip():
        return Fault(entry.photo_id, "no text", entry.photo)
    return None


def _read_image(
    entry: Entry, uri: str, modality: Modality, read: Callable[[str], bytes]
) -> tuple[bytes | None, Fault | None]:
    try:
        data = read(uri)
    except InputError as error:
        if isinstance(error.__cause__, MISSING_FILE_ERRORS):
            return None, Fault(entry.photo_id, f"{modality} missing", uri)
        if error.__cause__ is not None:
            raise  # storage is unreachable, so the photo is not at fault
        return None, Fault(entry.photo_id, f"{modality} does not decode", uri, str(error))
    try:
        _check_image(data, modality)
    except NoStrokeError:
        return None, Fault(entry.photo_id, NO_STROKE, uri)
    except InputError as error:
        return None, Fault(entry.photo_id, f"{modality} does not decode", uri, str(error))
    return data, None


def _check_image(data: bytes, modality: Modality) -> None:
    if modality == "sketch":
        require_stroke(read_sketch(data))
    else:
        open_image(data, modality)


def _row(entry: Entry, photo: bytes, sketches: list[bytes]) -> Row:
    return {
        "photo_id": entry.photo_id,
        "category": entry.category,
        "class": entry.class_,
        "split": entry.split,
        "photo": photo,
        "sketches": sketches,
        "text": (entry.text or "").strip() or None,
        "text_source": entry.text_source,
        "sketch_count": len(sketches),
    }
