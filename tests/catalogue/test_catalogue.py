"""Each kind of catalogue against what was laid down; what is listed, read, refused."""

import csv
import io
import json
import tarfile
from collections.abc import Iterator
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from stbir.catalogue import photo
from stbir.catalogue.folder import FolderCatalogue
from stbir.catalogue.photo import Catalogue, Photo
from stbir.catalogue.reading import read_listed
from stbir.catalogue.registry import open_catalogue
from stbir.catalogue.shards import ShardsCatalogue
from stbir.data.shard_writer import publish, write_rows
from stbir.data.shards import open_shards
from stbir.data.validation import Fault
from stbir.errors import InputError
from stbir.storage import retry
from stbir.storage.folder import Folder
from tests.conftest import free_port
from tests.data.pictures import png, tree
from tests.gallery.world import row


@pytest.fixture(autouse=True)
def _small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(photo, "PART", 2)
    monkeypatch.setattr(retry, "FIRST_WAIT", 1e-3)


def everything(catalogue: Catalogue) -> list[Photo | Fault]:
    """All that it gives; what it lists, counts and gives agrees."""
    parts = list(catalogue.parts())
    given = [each for part in parts for each in catalogue.read(part)]
    assert [each.photo_id for each in given] == [name for part in parts for name in part.ids]
    assert len(given) == catalogue.count()
    return given


def test_a_folder_is_walked_in_a_fixed_order(tmp_path: Path, s3: str) -> None:
    files = {
        "b/deep/2.JPG": png(2),
        "b/1.png": png(1),
        "a [x]/*.webp": png(3),
        "top.gif": png(4),
        "a [x]/notes.txt": "no picture",
        "b/deep/er/2.tiff": b"",
    }
    root = tree(tmp_path / "pictures", files)
    (root / "b" / "circle").symlink_to(root)
    bucket = Folder(f"{s3}/catalogue")
    for name, data in files.items():
        bucket.write(name, data.encode() if isinstance(data, str) else data)
    for uri, name in ((str(root), "pictures"), (bucket.uri, "catalogue")):
        given = everything(FolderCatalogue(uri))
        assert [(each.photo_id, each.category, each.data) for each in given] == [  # type: ignore[union-attr]
            ("top.gif", name, png(4)),
            ("a [x]/*.webp", "a [x]", png(3)),
            ("b/1.png", "b", png(1)),
            ("b/deep/2.JPG", "b", png(2)),
            ("b/deep/er/2.tiff", "b", b""),
        ]


ROWS = [
    {"photo_id": "1", "uri": "in/1.png", "category": "cup", "price": 2.5, "stock": True},
    {"photo_id": "2", "uri": "memory://elsewhere/2.png", "category": None, "price": None, "stock": False},
    {"photo_id": "3", "uri": "gone.png", "category": "cup", "price": 1.0, "stock": None},
    {"photo_id": "4", "uri": None, "category": "cup", "price": 1.0, "stock": True},
    {"photo_id": "5", "uri": "nowhere://5.png", "category": "cup", "price": 1.0, "stock": True},
]


def write_csv(path: Path, rows: list[dict[str, object]]) -> None:
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows([{k: "" if v is None else v for k, v in each.items()} for each in rows])


@pytest.mark.parametrize("kind", ["csv", "parquet", "folder"])
def test_a_table_names_photos_anywhere(tmp_path: Path, kind: str) -> None:
    tree(tmp_path, {"in/1.png": png(1)})
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
    catalogue = open_catalogue(f"table:{uri}")
    assert [str(field.type) for field in catalogue.fields] == ["string", "double", "bool"]
    first, second, *lost = everything(catalogue)
    assert first == Photo("1", "cup", ("in/1.png", 2.5, True), png(1))
    assert second == Photo("2", "unknown", ("memory://elsewhere/2.png", None, False), png(2))
    assert all(isinstance(each, Fault) for each in lost)
    assert [each.reason for each in lost] == ["photo missing", "no uri", "photo cannot be opened"]  # type: ignore[union-attr]


def test_the_types_of_metadata(tmp_path: Path) -> None:
    when = datetime(2026, 1, 2, tzinfo=UTC)
    table = pa.table(
        {
            "photo_id": pa.array([7], pa.int32()),
            "uri": ["x.png"],
            "n": pa.array([3], pa.int8()),
            "kind": pa.array(["a"]).dictionary_encode(),
            "when": pa.array([when], pa.timestamp("ms", "UTC")),
            "share": pa.array([0.5], pa.float32()),
        }
    )
    tree(tmp_path, {"x.png": png()})
    pq.write_table(table, tmp_path / "t.parquet")
    catalogue = open_catalogue(f"table:{tmp_path}/t.parquet")
    kinds = ["string", "int64", "string", "timestamp[us, tz=UTC]", "double"]
    assert [str(field.type) for field in catalogue.fields] == kinds
    [given] = everything(catalogue)
    assert isinstance(given, Photo)
    assert (given.photo_id, given.facts[1:3], given.facts[4]) == ("7", (3, "a"), 0.5)
    assert given.facts[3] == when


def tar(path: Path, files: dict[str, bytes]) -> None:
    with tarfile.open(path, "w") as out:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            out.addfile(info, io.BytesIO(data))


def about(**facts: object) -> bytes:
    return json.dumps(facts).encode()


def test_a_webdataset(tmp_path: Path) -> None:
    one = {"1.png": png(1), "1.json": about(category="cup", price=1.5), "2.cls": b"7\n", "2.jpg": png(2)}
    two = {"1.json": about(price=3, colour="red"), "1.png": png(3), "2.txt": b"", "a/3.webp": png(4)}
    tar(tmp_path / "00.tar", one)
    tar(tmp_path / "01.tar", two)
    first, second, odd, none, last = everything(open_catalogue(f"webdataset:{tmp_path}"))
    assert first == Photo("00/1", "cup", (1.5,), png(1))
    assert second == Photo("00/2", "7", (None,), png(2))
    assert (odd.photo_id, odd.reason) == ("01/1", "metadata does not fit")  # type: ignore[union-attr]
    assert odd.detail == "colour is in no sample of the first tar file"  # type: ignore[union-attr]
    assert (none.photo_id, none.reason) == ("01/2", "no picture in the sample")  # type: ignore[union-attr]
    assert last == Photo("01/a/3", "unknown", (None,), png(4))


def test_a_bad_sample_is_bad_alone(tmp_path: Path) -> None:
    files = {"1.png": png(1), "1.json": b"{broken", "2.png": png(2), "2.cls": b"\xff\xfe", "3.png": png(3)}
    files |= {"3.json": b"[1]", "4.png": png(4), "4.json": b"[" * 100_000, "5.png": png(5)}
    files |= {"5.json": about(price=10**30), "6.png": png(6), "6.json": about(category="\ud800")}
    tar(tmp_path / "00.tar", {"0.png": png(0), "0.json": about(category="cup", price=1)})
    tar(tmp_path / "01.tar", {**files, "7.png": png(7), "7.json": about(category="cup", price=2)})
    good, *bad, last = everything(open_catalogue(f"webdataset:{tmp_path}"))
    assert good == Photo("00/0", "cup", (1,), png(0))
    assert last == Photo("01/7", "cup", (2,), png(7))
    json_, fit = ".json cannot be read", "metadata does not fit"
    assert all(isinstance(each, Fault) and each.detail for each in bad)
    assert [each.reason for each in bad] == [json_, ".cls cannot be read", json_, json_, fit, fit]  # type: ignore[union-attr]


def test_a_bad_sample_in_the_first_tar_gives_no_columns(tmp_path: Path) -> None:
    tar(tmp_path / "0.tar", {"1.png": png(1), "1.json": b"{", "2.png": png(2), "2.json": about(price=1.5)})
    bad, good = everything(open_catalogue(f"webdataset:{tmp_path}/0.tar"))
    assert isinstance(bad, Fault)
    assert good == Photo("0/2", "unknown", (1.5,), png(2))


def test_shards_by_split(tmp_path: Path) -> None:
    rows = [{**row(i % 8, i // 8, text=i % 2 > 0), "split": "test" if i % 3 else "train"} for i in range(20)]
    folder = Folder(str(tmp_path))
    publish(folder, [write_rows(folder, n, rows[n::2]) for n in range(2)], {"in": 20}, {})  # type: ignore[arg-type]
    shards = open_shards(folder.uri)
    for split in ("test", None):
        given = everything(ShardsCatalogue(shards, split))
        catalogue = ShardsCatalogue(shards, split)
        told = [(each.photo_id, dict(zip(catalogue.fields.names, each.facts, strict=True))) for each in given]  # type: ignore[union-attr]
        names = ("class", "split", "text")
        laid = list(shards.rows(split))
        assert told == [(each["photo_id"], {name: each[name] for name in names}) for each in laid]  # type: ignore[literal-required]
        assert {each["text"] is None for each in laid} == {True, False}


class Moody(BaseHTTPRequestHandler):
    """`/503-2/x` is busy twice; `/404`, `/500` always answer so; the rest is a picture."""

    asked: dict[str, int]

    def do_GET(self) -> None:
        self.asked[self.path] = self.asked.get(self.path, 0) + 1
        word, _, times = self.path.split("/")[1].partition("-")
        failing = word.isdigit() and self.asked[self.path] <= int(times or 10**9)
        body = png(5)
        self.send_response(int(word) if failing else 200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_HEAD = do_GET

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def moody() -> Iterator[str]:
    Moody.asked = {}
    server = ThreadingHTTPServer(("127.0.0.1", free_port()), Moody)
    thread = Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def test_errors_that_pass_are_tried_again_and_no_others(moody: str) -> None:
    names = ["503-2/a", "ok/b", "404/c", "500/d"]
    listed = [photo.Listed(name, "", f"{moody}/{name}") for name in names]
    busy, fine, gone, failing = read_listed(listed)
    assert [getattr(each, "data", None) for each in (busy, fine)] == [png(5)] * 2
    assert isinstance(gone, Fault)
    assert gone.reason == "photo missing"
    assert isinstance(failing, Fault)
    assert failing.reason == photo.OUT_OF_REACH
    assert Moody.asked == {"/503-2/a": 3, "/ok/b": 1, "/404/c": 1, "/500/d": retry.TRIES}


def test_a_short_read_is_no_photo(tmp_path: Path) -> None:
    (tmp_path / "x.png").write_bytes(png())
    [given] = read_listed([photo.Listed("x", "", str(tmp_path / "x.png"), size=10**6)])
    assert isinstance(given, Fault)
    assert given.reason == photo.OUT_OF_REACH
    assert "1000000 were listed" in (given.detail or "")


@pytest.mark.parametrize(
    ("files", "catalogue", "says"),
    [
        ({}, "folder:nowhere", "nowhere.*cannot be listed"),
        ({"a.txt": "x"}, "folder:.", "no photos there"),
        ({}, "table:nowhere.csv", "no table there"),
        ({"t.csv": "id,uri\n1,x\n"}, "table:t.csv", "no column photo_id; there is id, uri"),
        ({"t.csv": "photo_id,uri,content\n1,x,y\n"}, "table:t.csv", "cannot be called 'content'; rename it"),
        ({"t.csv": "photo_id,uri,_x\n1,x,y\n"}, "table:t.csv", "cannot be called '_x'"),
        ({"t.parquet": b"PAR1 nothing"}, "table:t.parquet", "not a readable table"),
        ({"t.csv": "photo_id,uri\n"}, "table:t.csv", "no photos there"),
        ({"x.tar": b"x" * 1000}, "webdataset:x.tar", "not a whole tar file"),
        ({}, "webdataset:.", "no .tar file there"),
        ({}, "bucket:x", "KIND one of folder, table, webdataset"),
        ({}, "folder:", "not KIND:URI"),
    ],
)
def test_what_is_no_catalogue_is_refused(tmp_path, monkeypatch, files, catalogue, says) -> None:
    monkeypatch.chdir(tree(tmp_path, files))
    with pytest.raises(InputError, match=says):
        open_catalogue(catalogue)


def test_columns_that_cannot_be_kept_are_refused(tmp_path: Path) -> None:
    pq.write_table(pa.table({"photo_id": ["1"], "uri": ["x"], "tags": [["a"]]}), tmp_path / "t.parquet")
    with pytest.raises(InputError, match=r"column tags: list<.*cannot be kept.*make it text"):
        open_catalogue(f"table:{tmp_path}/t.parquet")
