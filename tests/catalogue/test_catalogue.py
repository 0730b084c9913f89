"""Each kind of catalogue lists and reads the photos written for the test, and refuses invalid input."""

import csv
import io
import json
import tarfile
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from stbir.catalogue import photo
from stbir.catalogue.folder import FolderCatalogue
from stbir.catalogue.photo import Catalogue, Photo
from stbir.catalogue.reading import read_photos
from stbir.catalogue.registry import open_catalogue
from stbir.catalogue.shards import ShardsCatalogue
from stbir.data.shard_writer import publish, write_rows
from stbir.data.shards import open_shards
from stbir.data.sources.layout import OUTSIDE
from stbir.data.validation import Fault
from stbir.errors import InputError
from stbir.storage import retry
from stbir.storage.folder import Folder
from tests.data.image_files import png, write_files
from tests.gallery.toy_dataset import row
from tests.http_server import Handler, Server


@pytest.fixture(autouse=True)
def _small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(photo, "PART_SIZE", 2)
    monkeypatch.setattr(retry, "INITIAL_WAIT_S", 1e-3)


def read_all(catalogue: Catalogue) -> list[Photo | Fault]:
    """All photos and faults; checks that they agree with the listed ids and the count."""
    parts = list(catalogue.parts())
    photos = [item for part in parts for item in catalogue.read(part)]
    assert [item.photo_id for item in photos] == [photo_id for part in parts for photo_id in part.ids]
    assert len(photos) == catalogue.count()
    return photos


def test_a_folder_is_listed_in_a_fixed_order(tmp_path: Path, s3: str) -> None:
    files = {
        "b/deep/2.JPG": png(2),
        "b/1.png": png(1),
        "a [x]/*.webp": png(3),
        "top.gif": png(4),
        "a [x]/notes.txt": "no image",
        "b/deep/er/2.tiff": b"",
    }
    root = write_files(tmp_path / "photos", files)
    (root / "b" / "cycle").symlink_to(root)
    bucket = Folder(f"{s3}/catalogue")
    for name, data in files.items():
        bucket.write(name, data.encode() if isinstance(data, str) else data)
    for uri, name in ((str(root), "photos"), (bucket.uri, "catalogue")):
        items = read_all(FolderCatalogue(uri))
        photos = [item for item in items if isinstance(item, Photo)]
        not_taken = {item.photo_id: item.reason for item in items if isinstance(item, Fault)}
        cycle = {"b/cycle": "link to a listed folder"} if uri == str(root) else {}
        assert not_taken == {"a [x]/notes.txt": "not an image"} | cycle
        assert [(item.photo_id, item.category, item.data) for item in photos] == [
            ("top.gif", name, png(4)),
            ("a [x]/*.webp", "a [x]", png(3)),
            ("b/1.png", "b", png(1)),
            ("b/deep/2.JPG", "b", png(2)),
            ("b/deep/er/2.tiff", "b", b""),
        ]


ROWS = [
    {"photo_id": "1", "uri": "in/1.png", "category": "cup", "price": 2.5, "stock": True},
    {"photo_id": "2", "uri": "memory://elsewhere/2.png", "category": None, "price": None, "stock": False},
    {"photo_id": "3", "uri": "missing.png", "category": "cup", "price": 1.0, "stock": None},
    {"photo_id": "4", "uri": None, "category": "cup", "price": 1.0, "stock": True},
    {"photo_id": "5", "uri": "unknown://5.png", "category": "cup", "price": 1.0, "stock": True},
]


def write_csv(path: Path, rows: list[dict[str, object]]) -> None:
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows([{k: "" if v is None else v for k, v in row.items()} for row in rows])


@pytest.mark.parametrize("kind", ["csv", "parquet", "folder"])
def test_a_table_of_photos_at_any_uri(tmp_path: Path, kind: str) -> None:
    write_files(tmp_path, {"in/1.png": png(1)})
    fsspec.filesystem("memory").pipe_file("/elsewhere/2.png", png(2))
    uri = tmp_path if kind == "folder" else tmp_path / f"list.{kind}"
    if kind == "csv":
        write_csv(tmp_path / "list.csv", ROWS)
    else:
        pq.write_table(pa.Table.from_pylist(ROWS[:3]), tmp_path / "list.parquet")
        if kind == "parquet":
            pq.write_table(pa.Table.from_pylist(ROWS), tmp_path / "list.parquet")
        else:
            schema = pq.read_schema(tmp_path / "list.parquet")
            pq.write_table(pa.Table.from_pylist(ROWS[3:], schema=schema), tmp_path / "more.parquet")
    catalogue = open_catalogue(f"table:{uri}", schemes=["memory", "unknown"])
    assert [str(field.type) for field in catalogue.fields] == ["string", "double", "bool"]
    one, two, *faults = read_all(catalogue)
    if kind == "folder":
        assert faults.pop() == Fault("in", "folder not searched", detail="in")
    assert one == Photo("1", "cup", ("in/1.png", 2.5, True), png(1))
    assert two == Photo("2", "unknown", ("memory://elsewhere/2.png", None, False), png(2))
    assert all(isinstance(fault, Fault) for fault in faults)
    assert [fault.reason for fault in faults] == ["photo missing", "no uri", "photo cannot be opened"]  # type: ignore[union-attr]


@pytest.mark.parametrize("is_remote", [False, True])
@pytest.mark.parametrize("kind", ["table", "webdataset"])
def test_what_a_folder_holds_beside_its_tables_or_tar_files_is_not_taken(
    tmp_path: Path, s3: str, kind: str, is_remote: bool
) -> None:
    """A glob of one level sees neither nested files nor those with another suffix."""
    pq.write_table(pa.table({"photo_id": ["1"], "uri": ["1.png"]}), tmp_path / "list.parquet")
    write_tar(tmp_path / "a.tar", {"1.png": png(1)})
    own = "list.parquet" if kind == "table" else "a.tar"
    names = ("more.csv", "b.tar.gz", "deep/er/c.parquet", "deep/c.tar", "README")
    files = {own: (tmp_path / own).read_bytes(), "1.png": png(1), **dict.fromkeys(names, b"")}
    uri = f"{s3}/beside_{kind}" if is_remote else str(tmp_path / kind)
    for name, data in files.items():
        folder, _, base = f"{uri}/{name}".rpartition("/")
        Folder(folder).write(base, data)
    taken, *others = read_all(open_catalogue(f"{kind}:{uri}"))
    assert isinstance(taken, Photo)
    assert {(other.photo_id, other.reason, other.detail) for other in others} == {
        *({("1.png", OUTSIDE, ".png")} if kind == "webdataset" else set()),
        *(("more.csv", OUTSIDE, ".csv"), ("b.tar.gz", OUTSIDE, ".gz"), ("README", OUTSIDE, "no suffix")),
        ("deep", "folder not searched", "deep"),
    }
    assert {other.reason for other in others} <= photo.NOT_TAKEN
    assert isinstance(read_all(open_catalogue(f"{kind}:{uri}/{own}"))[-1], Photo)


def test_metadata_types(tmp_path: Path) -> None:
    time = datetime(2026, 1, 2, tzinfo=UTC)
    table = pa.table(
        {
            "photo_id": pa.array([7], pa.int32()),
            "uri": ["x.png"],
            "n": pa.array([3], pa.int8()),
            "kind": pa.array(["a"]).dictionary_encode(),
            "time": pa.array([time], pa.timestamp("ms", "UTC")),
            "ratio": pa.array([0.5], pa.float32()),
        }
    )
    write_files(tmp_path, {"x.png": png()})
    pq.write_table(table, tmp_path / "t.parquet")
    catalogue = open_catalogue(f"table:{tmp_path}/t.parquet")
    kinds = ["string", "int64", "string", "timestamp[us, tz=UTC]", "double"]
    assert [str(field.type) for field in catalogue.fields] == kinds
    [item] = read_all(catalogue)
    assert isinstance(item, Photo)
    assert (item.photo_id, item.metadata[1:]) == ("7", (3, "a", time, 0.5))


def write_tar(path: Path, files: dict[str, bytes]) -> None:
    with tarfile.open(path, "w") as out:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            out.addfile(info, io.BytesIO(data))


def to_json(**values: object) -> bytes:
    return json.dumps(values).encode()


def test_a_webdataset(tmp_path: Path) -> None:
    files_0 = {
        "1.png": png(1),
        "1.json": to_json(category="cup", price=1.5),
        "2.cls": b"7\n",
        "2.jpg": png(2),
    }
    files_1 = {"1.json": to_json(price=3, colour="red"), "1.png": png(3), "2.txt": b"", "a/3.webp": png(4)}
    write_tar(tmp_path / "00.tar", files_0)
    write_tar(tmp_path / "01.tar", files_1)
    one, two, unknown_key, no_image, last = read_all(open_catalogue(f"webdataset:{tmp_path}"))
    assert one == Photo("00/1", "cup", (1.5,), png(1))
    assert two == Photo("00/2", "7", (None,), png(2))
    assert (unknown_key.photo_id, unknown_key.reason) == ("01/1", "metadata does not fit")  # type: ignore[union-attr]
    assert unknown_key.detail == "colour is in no sample of the first tar file"  # type: ignore[union-attr]
    assert (no_image.photo_id, no_image.reason) == ("01/2", "no picture in the sample")  # type: ignore[union-attr]
    assert last == Photo("01/a/3", "unknown", (None,), png(4))


def test_an_invalid_sample_does_not_affect_others(tmp_path: Path) -> None:
    files = {"1.png": png(1), "1.json": b"{broken", "2.png": png(2), "2.cls": b"\xff\xfe", "3.png": png(3)}
    files |= {"3.json": b"[1]", "4.png": png(4), "4.json": b"[" * 100_000, "5.png": png(5)}
    files |= {"5.json": to_json(price=10**30), "6.png": png(6), "6.json": to_json(category="\ud800")}
    write_tar(tmp_path / "00.tar", {"0.png": png(0), "0.json": to_json(category="cup", price=1)})
    write_tar(tmp_path / "01.tar", {**files, "7.png": png(7), "7.json": to_json(category="cup", price=2)})
    valid, *faults, last = read_all(open_catalogue(f"webdataset:{tmp_path}"))
    assert valid == Photo("00/0", "cup", (1,), png(0))
    assert last == Photo("01/7", "cup", (2,), png(7))
    json_, fit = ".json cannot be read", "metadata does not fit"
    assert all(isinstance(fault, Fault) and fault.detail for fault in faults)
    assert [fault.reason for fault in faults] == [json_, ".cls cannot be read", json_, json_, fit, fit]  # type: ignore[union-attr]


def test_an_invalid_sample_in_the_first_tar_defines_no_columns(tmp_path: Path) -> None:
    files = {"1.png": png(1), "1.json": b"{", "2.png": png(2), "2.json": to_json(price=1.5)}
    write_tar(tmp_path / "0.tar", files)
    invalid, valid = read_all(open_catalogue(f"webdataset:{tmp_path}/0.tar"))
    assert isinstance(invalid, Fault)
    assert valid == Photo("0/2", "unknown", (1.5,), png(2))


def test_shards_by_split(tmp_path: Path) -> None:
    rows = [{**row(i % 8, i // 8, text=i % 2 > 0), "split": "test" if i % 3 else "train"} for i in range(20)]
    folder = Folder(str(tmp_path))
    publish(folder, [write_rows(folder, n, rows[n::2]) for n in range(2)], {"in": 20}, {})  # type: ignore[arg-type]
    shards = open_shards(folder.uri)
    for split in ("test", None):
        catalogue = ShardsCatalogue(shards, split)
        assert catalogue.fields.names == ["class", "split", "text"]
        photos = [(item.photo_id, item.metadata) for item in read_all(catalogue)]  # type: ignore[union-attr]
        expected = list(shards.iter_rows(split))
        assert photos == [(r["photo_id"], (r["class"], r["split"], r["text"])) for r in expected]
        assert {r["text"] is None for r in expected} == {True, False}


class FaultyHandler(Handler):
    """`/503-2/x` fails with 503 twice, `/404/x` always with 404. All other paths return an image."""

    num_requests: Counter[str]

    def do_GET(self) -> None:
        self.num_requests[self.path] += 1
        status, _, num_failures = self.path.split("/")[1].partition("-")
        fails = status.isdigit() and self.num_requests[self.path] <= int(num_failures or 10**9)
        self.respond(int(status) if fails else 200, png(5))

    do_HEAD = do_GET


@pytest.fixture
def faulty_server() -> Iterator[str]:
    FaultyHandler.num_requests = Counter()
    with Server(FaultyHandler).running() as url:
        yield url


def test_only_transient_errors_are_retried(faulty_server: str) -> None:
    names = ["503-2/a", "ok/b", "404/c", "500/d"]
    refs = [photo.PhotoRef(name, "", f"{faulty_server}/{name}") for name in names]
    *photos, missing, unreachable = read_photos(refs)
    assert [getattr(item, "data", None) for item in photos] == [png(5)] * 2
    assert isinstance(missing, Fault)
    assert isinstance(unreachable, Fault)
    assert (missing.reason, unreachable.reason) == ("photo missing", photo.PHOTO_UNREACHABLE)
    num_requests = {"/503-2/a": 3, "/ok/b": 1, "/404/c": 1, "/500/d": retry.MAX_ATTEMPTS}
    assert FaultyHandler.num_requests == num_requests


def test_a_short_read_is_a_fault(tmp_path: Path) -> None:
    (tmp_path / "x.png").write_bytes(png())
    [fault] = read_photos([photo.PhotoRef("x", "", str(tmp_path / "x.png"), size=10**6)])
    assert isinstance(fault, Fault)
    assert fault.reason == photo.PHOTO_UNREACHABLE
    assert "1000000 were listed" in (fault.detail or "")


@pytest.mark.parametrize(
    ("files", "spec", "message"),
    [
        ({}, "folder:nowhere", "nowhere.*cannot be listed"),
        ({}, "folder:.", "contains no photo"),
        ({}, "table:nowhere.csv", "no table found"),
        ({"t.csv": "id,uri\n1,x\n"}, "table:t.csv", "no column photo_id among id, uri"),
        ({"t.csv": "photo_id,uri,content\n1,x,y\n"}, "table:t.csv", "cannot be named 'content'; rename it"),
        ({"t.csv": "photo_id,uri,_x\n1,x,y\n"}, "table:t.csv", "cannot be named '_x'"),
        ({"t.parquet": b"PAR1 nothing"}, "table:t.parquet", "not a readable table"),
        ({"t.csv": "photo_id,uri\n"}, "table:t.csv", "contains no photo"),
        ({"x.tar": b"x" * 1000}, "webdataset:x.tar", "not a complete tar file"),
        ({}, "webdataset:.", "no .tar file found"),
        ({}, "bucket:x", "KIND one of folder, table, webdataset"),
        ({}, "folder:", "not KIND:URI"),
    ],
)
def test_an_invalid_catalogue_is_refused(tmp_path, monkeypatch, files, spec, message) -> None:
    monkeypatch.chdir(write_files(tmp_path, files))
    with pytest.raises(InputError, match=message):
        open_catalogue(spec)


@pytest.mark.parametrize("spec", ["folder:.", "webdataset:x.tar"])
def test_options_of_a_table_are_refused_for_others(spec: str) -> None:
    for option, values in (("--column", {"columns": ["x:int"]}), ("--allow-scheme", {"schemes": ["http"]})):
        with pytest.raises(InputError, match=f"{option}: .* leave it out"):
            open_catalogue(spec, **values)


def test_columns_of_an_unsupported_type_are_refused(tmp_path: Path) -> None:
    pq.write_table(pa.table({"photo_id": ["1"], "uri": ["x"], "tags": [["a"]]}), tmp_path / "t.parquet")
    with pytest.raises(InputError, match=r"column tags: list<.*cannot be stored.*make it text"):
        open_catalogue(f"table:{tmp_path}/t.parquet")
