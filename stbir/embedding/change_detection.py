"""Change detection: photos whose file has the identity that the gallery has stored are not read."""

from collections.abc import Iterator, Sequence
from itertools import compress

from stbir.catalogue.photo import PART_SIZE, Catalogue, Part
from stbir.embedding.decode import DecodedPart, UnreadPart
from stbir.gallery.existing_rows import ExistingRows
from stbir.gallery.fingerprint import short_hash


def detect_changes(catalogue: Catalogue, rows: ExistingRows) -> Iterator[DecodedPart | UnreadPart]:
    """The photos that the table has unchanged, and parts of the others, each in the catalogue's order.

    A part that is not divisible is read as a whole if one of its photos may have changed. Holds about 100
    bytes per id in memory, to find duplicates.
    """
    seen: set[str] = set()
    pending: list[tuple[str, object, bool, bytes]] = []  # of divisible parts: a location per photo
    for part in catalogue.parts():
        is_duplicate = _mark_duplicates(part.ids, seen)
        identities = [b"" if each is None else short_hash(each) for each in catalogue.identities(part)]
        known = rows.lookup_identities(part.ids, identities)
        is_unread = [not each or twice for each, twice in zip(known, is_duplicate, strict=True)]
        if part.is_divisible:
            photos = zip(part.ids, part.location, is_duplicate, identities, strict=True)
            pending += compress(photos, is_unread)
        elif any(is_unread):
            is_unread = [True] * len(part.ids)
            yield UnreadPart(part, is_duplicate, identities, rows.lookup_fingerprints(part.ids))
        if not all(is_unread):
            pairs = zip(part.ids, known, is_unread, strict=True)
            yield DecodedPart(existing=[(photo_id, row) for photo_id, row, unread in pairs if not unread])
        if len(pending) >= PART_SIZE:
            yield _unread_part(pending[:PART_SIZE], rows)
            del pending[:PART_SIZE]
    if pending:
        yield _unread_part(pending, rows)


def _mark_duplicates(photo_ids: Sequence[str], seen: set[str]) -> list[bool]:
    is_duplicate = []
    for photo_id in photo_ids:
        is_duplicate.append(photo_id in seen)
        seen.add(photo_id)
    return is_duplicate


def _unread_part(photos: list[tuple[str, object, bool, bytes]], rows: ExistingRows) -> UnreadPart:
    photo_ids, locations, is_duplicate, identities = map(list, zip(*photos, strict=True))
    return UnreadPart(
        Part(photo_ids, locations), is_duplicate, identities, rows.lookup_fingerprints(photo_ids)
    )
