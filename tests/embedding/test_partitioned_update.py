"""Updates whose ids are on disk: the plan of an explicit dictionary, memory at two sizes, and shares."""

import tracemalloc
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stbir.catalogue.photo import Part, PhotoRef, split_into_parts
from stbir.embedding.catalogue_share import CatalogueShare
from stbir.embedding.change_detection import PHOTO_ROW, detect_changes
from stbir.embedding.decode import DecodedPart, UnreadPart
from stbir.embedding.gallery_update import EmbeddingSpace, append_share, plan_update, update_table
from stbir.embedding.listing import Listing
from stbir.embedding.table_changes import PhotoOutcomes, find_table_changes
from stbir.errors import InputError, LockedError
from stbir.gallery.arrays import Features
from stbir.gallery.existing_rows import ROW
from stbir.gallery.fingerprint import fingerprint, short_hash
from stbir.gallery.gallery import open_table
from stbir.gallery.partitioned_records import PartitionedRecords, partitioned
from stbir.gallery.store import open_store
from stbir.gallery.table import PUBLISHED
from stbir.storage.folder import Folder
from stbir.storage.lock import artifact_lock
from stbir.storage.part_lock import part_lock

SPACE = EmbeddingSpace("0", 2)
Photos = list[tuple[str, int]]  # id and content


@dataclass(frozen=True)
class ListedPhotos:
    """A catalogue of photos whose version is their content; parts of 3 that are read as a whole, or not."""

    photos: Photos
    is_divisible: bool = True

    @property
    def fields(self) -> pa.Schema:
        return pa.schema([])

    def parts(self) -> Iterator[Part]:
        refs = [PhotoRef(name, "", name, size=1, version=str(content)) for name, content in self.photos]
        if self.is_divisible:
            yield from split_into_parts(refs)
        else:
            threes = (refs[start : start + 3] for start in range(0, len(refs), 3))
            yield from (Part([ref.photo_id for ref in three], tuple(three)) for three in threes)

    def identities(self, part: Part) -> list[str | None]:
        return [ref.identify(ref.version) for ref in part.location]


def identity(name: str, content: int) -> bytes:
    return short_hash(PhotoRef(name, "", name, size=1, version=str(content)).identify(str(content)) or "")


def print_of(name: str, content: int) -> bytes:
    return fingerprint(name, "", str(content), ())


def embed(parts: Iterator[DecodedPart | UnreadPart]) -> Iterator[tuple[DecodedPart, Features]]:
    """Vectors of zeros of the photos that are new or changed."""
    for part in parts:
        decoded = part if isinstance(part, DecodedPart) else decode(part)
        yield decoded, np.zeros((len(decoded.photo_ids), SPACE.dim), np.float32)


def decode(part: UnreadPart) -> DecodedPart:
    decoded = DecodedPart()
    columns = (part.part.location, part.is_duplicate, part.identities, part.fingerprints)
    for ref, is_duplicate, known_identity, existing in zip(*columns, strict=True):
        assert not is_duplicate
        row = print_of(ref.photo_id, int(ref.version))
        if row in existing:
            decoded.existing.append((ref.photo_id, row))
        else:
            decoded.photo_ids.append(ref.photo_id)
            decoded.contents.append(ref.version)
        decoded.identities.append((row, known_identity))
    count = len(decoded.photo_ids)
    decoded.categories.extend([""] * count)
    decoded.thumbnails.extend([b""] * count)
    decoded.metadata.extend([()] * count)
    return decoded


PHOTOS = st.lists(st.tuples(st.text("abcdé", min_size=1, max_size=2), st.integers(0, 2)), max_size=40)


@settings(max_examples=60, deadline=None)
@given(listed=PHOTOS, existing=PHOTOS, known=st.sets(st.integers(0, 39)), is_divisible=st.booleans())
def test_the_plan_is_that_of_a_dictionary(
    listed: Photos, existing: Photos, known: set[int], is_divisible: bool
) -> None:
    """`known`: which rows have an identity. A table can have several rows of a photo, equal or not."""
    table = [(name, content, n in known) for n, (name, content) in enumerate(existing)]
    rows = partitioned(ROW, [rows_of(table)])
    listing, retained = Listing(ListedPhotos(listed, is_divisible)), PartitionedRecords(PHOTO_ROW)  # type: ignore[arg-type]
    parts = list(detect_changes(listing, rows, retained))
    is_read, expected = expected_reads(listed, table, is_divisible)
    unread = [part for part in parts if isinstance(part, UnreadPart)]
    assert [photo for part in unread for photo in photos_of(part)] == expected
    unchanged = [photo for photo, each in zip(listed, is_read, strict=True) if not each]
    assert sum(part.num_unchanged for part in parts if isinstance(part, DecodedPart)) == len(unchanged)
    found = {tuple(row) for part in retained.partitions() for row in part.tolist()}
    assert found == {(short_hash(name), print_of(name, content)) for name, content in unchanged}


def rows_of(table: list[tuple[str, int, bool]]) -> np.ndarray:
    rows = [
        (short_hash(name), print_of(name, content), identity(name, content) if is_known else b"", n)
        for n, (name, content, is_known) in enumerate(table)
    ]
    return np.array(rows, ROW)


def expected_reads(
    listed: Photos, table: list[tuple[str, int, bool]], is_divisible: bool
) -> tuple[list[bool], list[tuple[str, bool, bytes, list[bytes]]]]:
    """Which photos are read, and what is known of each, by a dictionary and one photo after the other."""
    fingerprints: dict[str, list[bytes]] = {}
    for name, content, _ in table:
        fingerprints.setdefault(name, []).append(print_of(name, content))
    names = [name for name, _ in listed]
    is_duplicate = [name in names[:n] for n, name in enumerate(names)]
    is_known = [(name, content, True) in table for name, content in listed]
    is_read = [twice or not each for twice, each in zip(is_duplicate, is_known, strict=True)]
    if not is_divisible:
        is_read = [any(is_read[n // 3 * 3 : n // 3 * 3 + 3]) for n in range(len(listed))]
    photos = [
        (name, is_duplicate[n], identity(name, content), fingerprints.get(name, []))
        for n, (name, content) in enumerate(listed)
        if is_read[n]
    ]
    return is_read, photos


def photos_of(part: UnreadPart) -> list[tuple[str, bool, bytes, list[bytes]]]:
    columns = (part.part.ids, part.is_duplicate, part.identities, part.fingerprints)
    return list(zip(*columns, strict=True))


@settings(max_examples=60, deadline=None)
@given(table=PHOTOS, outcomes=st.dictionaries(st.text("abcdé", min_size=1, max_size=2), st.integers(0, 4)))
def test_the_changes_of_a_table_are_those_of_a_dictionary(table: Photos, outcomes: dict[str, int]) -> None:
    """Outcomes of listed photos: 0 to 2 a content, 3 not read but to be tried again, 4 no photo."""
    published, results, expected = dict(table), PhotoOutcomes(), dict[str, int]()
    newest = {name: n for n, (name, _) in enumerate(table)}
    retained = set()
    for name, outcome in outcomes.items():
        same = [n for n, photo in enumerate(table) if photo == (name, outcome)]
        if outcome == 4:
            results.not_taken.append(np.array([(short_hash(name),)], results.not_taken.dtype))
        elif (outcome == 3 and name in newest) or same:
            row = same[-1] if same else newest[name]
            retained.add(row)
            expected[name] = table[row][1]
            print_ = print_of(*table[row]) if same else b""
            results.retained.append(np.array([(short_hash(name), print_)], PHOTO_ROW))
        elif outcome < 3:
            expected[name] = outcome
            results.appended.append(np.array([(short_hash(name), print_of(name, outcome))], PHOTO_ROW))
    rows = partitioned(ROW, [rows_of([(*photo, False) for photo in table])])
    before = partitioned(ROW, [rows_of([(*photo, False) for photo in published.items()])])
    listing = Listing(ListedPhotos([(name, 0) for name in outcomes]))  # type: ignore[arg-type]
    changes = find_table_changes(listing, rows, results, before, before)
    stale = {int(row) for part in changes.stale.partitions() for row in part["row_id"]}
    assert stale == set(range(len(table))) - retained
    assert changes.num_retained == len(retained)
    assert len(changes.after) == len(expected)
    taken = {name for name, outcome in outcomes.items() if outcome != 4}
    assert changes.num_removed == len(published.keys() - taken)
    assert changes.counts == {
        "new": len(expected.keys() - published.keys()),
        "changed": sum(published.get(name, content) != content for name, content in expected.items()),
        "removed": len(published.keys() - expected.keys()),
    }


def test_the_memory_of_a_plan_does_not_depend_on_the_number_of_photos() -> None:
    """Bytes that Python and NumPy hold at the most; a dictionary would take 200 for each of 6,000 more."""
    few, many = (plan_memory(count) for count in (6_000, 12_000))
    assert many < few + 20 * 6_000


def plan_memory(count: int) -> int:
    catalogue = ListedPhotos([])
    refs = (PhotoRef(f"{n:07}.jpg", "", f"{n:07}.jpg", size=1, version="1") for n in range(count))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("stbir.gallery.partitioned_records._RUN_RECORDS", 1024)
        patch.setattr("stbir.embedding.listing._CHUNK_PHOTOS", 512)
        patch.setattr(ListedPhotos, "parts", lambda _: split_into_parts(refs))
        tracemalloc.start()
        try:
            listing, retained = Listing(catalogue), PartitionedRecords(PHOTO_ROW)  # type: ignore[arg-type]
            rows = partitioned(ROW, (known_rows(listed) for listed in listing.hashes.partitions()))
            parts = detect_changes(listing, rows, retained)
            assert sum(part.num_unchanged for part in parts if isinstance(part, DecodedPart)) == len(rows)
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()


def known_rows(listed: np.ndarray) -> np.ndarray:
    """Rows that are as the first half of a partition is listed."""
    rows = np.zeros(len(listed) // 2, ROW)
    for field in ("id", "identity"):
        rows[field] = listed[field][: len(rows)]
    rows["fingerprint"] = rows["identity"]
    return rows


MANY: Photos = [(f"{n:04}", n % 3) for n in range(1500)]
OLD: Photos = [("gone", 0), *MANY[:300]]


class KilledError(Exception):
    """Ends a driver."""


def embed_share(
    folder: Folder, catalogue: ListedPhotos, number: int, killed_after: int | None = None
) -> dict[str, int]:
    def embed_until_killed(
        parts: Iterator[DecodedPart | UnreadPart],
    ) -> Iterator[tuple[DecodedPart, Features]]:
        for n, result in enumerate(embed(parts)):
            if n == killed_after:
                raise KilledError
            yield result

    share = CatalogueShare(number, 3)
    with part_lock(folder, "gallery", share.name) as lock:
        listing = Listing(catalogue, share)  # type: ignore[arg-type]
        return append_share(listing, share, SPACE, folder, lock, embed_until_killed, 0)


def update(folder: Folder, photos: Photos, is_divisible: bool = True) -> dict[str, int]:
    with artifact_lock(folder, "gallery") as lock:
        plan = plan_update(ListedPhotos(photos, is_divisible), folder, SPACE, 1)  # type: ignore[arg-type]
        counts = update_table(plan, folder, lock, embed, 0).counts
    table = open_table(folder)
    open_store(folder).set_tag(PUBLISHED, table.version)
    rows = table.to_table(columns=["photo_id", "content"]).to_pylist()
    assert sorted((row["photo_id"], int(row["content"])) for row in rows) == sorted(photos)
    return counts


@pytest.mark.parametrize("is_divisible", [True, False])
def test_drivers_of_shares_work_side_by_side_and_one_run_finishes(
    tmp_path: Path, is_divisible: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One of three is killed. The others embed their photos once, and remove none; the last run does."""
    monkeypatch.setattr("stbir.gallery.background_writer._MIN_COMMIT_INTERVAL_S", 0.0)
    folder, catalogue = Folder(str(tmp_path / "gallery")), ListedPhotos(MANY, is_divisible)
    assert update(folder, OLD, is_divisible)["new"] == 301
    with ThreadPoolExecutor(3) as pool:
        killed_after = {1: None, 2: 2, 3: None}
        jobs = [pool.submit(embed_share, folder, catalogue, *item) for item in killed_after.items()]
        with pytest.raises(KilledError):
            jobs[1].result()
        counts = [jobs[n].result() for n in (0, 2)]
    assert all(0 < each["embedded"] < each["in"] == each["listed"] < 1000 for each in counts)
    committed = open_table(folder).count_rows()
    assert open_table(folder, PUBLISHED).count_rows() == 301
    again = embed_share(folder, catalogue, 2)
    assert sum(each["in"] for each in (*counts, again)) == 1500
    assert open_table(folder).count_rows() == committed + again["embedded"] == 1501
    assert len({name.partition("-")[2] for name in folder.child("identities").list_entries()}) > 1
    last = update(folder, MANY, is_divisible)
    assert (last["embedded"], last["already_there"], last["new"], last["removed"]) == (0, 1500, 1200, 1)


def test_a_share_without_photos_is_no_error(tmp_path: Path) -> None:
    counts = [embed_share(Folder(str(tmp_path)), ListedPhotos(MANY[:1]), n)["embedded"] for n in (1, 2, 3)]
    assert sorted(counts) == [0, 0, 1]


def test_a_share_and_a_job_for_all_photos_exclude_each_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("stbir.storage.part_lock.HEARTBEAT_TIMEOUT_S", 0.1)
    folder, catalogue = Folder(str(tmp_path)), ListedPhotos(MANY)
    with part_lock(folder, "gallery", "1-of-3"):
        with pytest.raises(LockedError, match="parts/1-of-3: locked by process"):
            update(folder, MANY)
        with pytest.raises(LockedError, match="1-of-3: locked"):
            embed_share(folder, catalogue, 1)
    with artifact_lock(folder, "gallery"), pytest.raises(LockedError, match="locked by process"):
        embed_share(folder, catalogue, 1)


def test_a_driver_of_a_share_cannot_commit_after_a_job_that_found_it_dead(tmp_path: Path) -> None:
    folder, catalogue = Folder(str(tmp_path)), ListedPhotos(MANY)

    def embed_slowly(
        parts: Iterator[DecodedPart | UnreadPart],
    ) -> Iterator[tuple[DecodedPart, Features]]:
        [first, *_] = embed(parts)
        lock.release()  # as if its process had ended
        update(folder, MANY)
        yield first

    share = CatalogueShare(2, 3)
    with part_lock(folder, "gallery", share.name) as lock:
        listing = Listing(catalogue, share)  # type: ignore[arg-type]
        with pytest.raises(InputError, match="another writer has taken over"):
            append_share(listing, share, SPACE, folder, lock, embed_slowly, 0)
    assert open_table(folder).count_rows() == 1500


@pytest.mark.parametrize("text", ["0/2", "3/2", "1", "1/257", "a/b", "-1/2", "1/2/3"])
def test_a_part_that_is_none_is_an_error(text: str) -> None:
    with pytest.raises(InputError, match=f"--part: '{text}' is not I/N"):
        CatalogueShare.parse(text)


def test_the_shares_of_a_catalogue_are_disjoint_and_complete() -> None:
    shares = [Listing(ListedPhotos(MANY), CatalogueShare(number, 4)) for number in (1, 2, 3, 4)]  # type: ignore[arg-type]
    ids = [part.ids for listing in shares for chunk in listing.chunks() for part in chunk.parts]
    assert sorted(chain.from_iterable(ids)) == [name for name, _ in MANY]
    assert all(300 < listing.num_photos < 450 for listing in shares)
