"""Which photos may enter SHARDS: each is read and decoded once, and what is wrong with it has a name."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

from stbir.data.schema import Row
from stbir.data.sources.entry import Entry
from stbir.errors import InputError
from stbir.images import open_picture

Part = Literal["photo", "sketch", "text"]
# A sketch that cannot be used costs its photo only where it was the last one.
SKETCH_REASONS = ("sketch missing", "sketch does not decode")


@dataclass(frozen=True)
class Fault:
    """One row of the quarantine. `reason` is one of few; `file` and `detail` say where and what; `content` is
    the SHA-256 of the photo's bytes where it has any."""

    photo_id: str
    reason: str
    file: str | None = None
    detail: str | None = None
    content: str | None = None

    @property
    def of_sketch(self) -> bool:
        """Whether only a sketch is lost, not the photo."""
        return self.reason in SKETCH_REASONS


def first_of_each(entries: Iterable[Entry]) -> tuple[list[Entry], list[Fault]]:
    """The entries without those whose id came before, and a fault for each of these."""
    seen: set[str] = set()
    kept: list[Entry] = []
    faults: list[Fault] = []
    for entry in entries:
        if entry.photo_id in seen:
            faults.append(Fault(entry.photo_id, "duplicate id", entry.photo, "the first one stays"))
        else:
            seen.add(entry.photo_id)
            kept.append(entry)
    return kept, faults


def inspect(
    entry: Entry, read: Callable[[str], bytes], requires: Iterable[Part]
) -> tuple[Row | None, list[Fault]]:
    """The row of an entry, or None with at least one fault that is not `of_sketch`.

    Pictures stay the bytes they were; they are decoded here only to know that they can be. Raises
    InputError where a picture cannot be read for now (as opposed to: is not there, is no picture).
    """
    lacking = list(_lacking(entry, requires))
    if lacking:
        return None, lacking
    photo, fault = _picture(entry, entry.photo, "photo", read)
    if photo is None:
        return None, [fault] if fault else []
    checked = [_picture(entry, uri, "sketch", read) for uri in entry.sketches]
    sketches = [data for data, _ in checked if data is not None]
    faults = [fault for _, fault in checked if fault]
    if "sketch" in requires and not sketches:
        return None, [*faults, Fault(entry.photo_id, "no readable sketch", entry.photo)]
    return _row(entry, photo, sketches), faults


def _lacking(entry: Entry, requires: Iterable[Part]) -> Iterator[Fault]:
    """At most one fault: a photo is lost once."""
    if "sketch" in requires and not entry.sketches:
        yield Fault(entry.photo_id, "no sketch", entry.photo)
    elif "text" in requires and not (entry.text or "").strip():
        yield Fault(entry.photo_id, "no text", entry.photo)


def _picture(
    entry: Entry, uri: str, part: Part, read: Callable[[str], bytes]
) -> tuple[bytes | None, Fault | None]:
    try:
        data = read(uri)
    except InputError as error:
        if not isinstance(error.__cause__, FileNotFoundError):
            raise  # out of reach for now: the photo is not to blame
        return None, Fault(entry.photo_id, f"{part} missing", uri)
    try:
        open_picture(data, part)
    except InputError as error:
        return None, Fault(entry.photo_id, f"{part} does not decode", uri, str(error))
    return data, None


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
