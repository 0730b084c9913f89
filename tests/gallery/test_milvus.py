"""Galleries in Milvus: what milvus-lite lacks, names and addresses, errors, and files in a collection."""

import base64
import logging
import socket
import subprocess
import sys
import threading
import time
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from fsspec.config import conf
from pymilvus import DataType, MilvusClient, MilvusException

from stbir.errors import InputError
from stbir.gallery.filters import Condition, render_filter
from stbir.gallery.gallery import open_gallery
from stbir.gallery.index import BuiltIndex, IndexPlan, build_index
from stbir.gallery.metadata import read_metadata
from stbir.gallery.milvus.columns import columns_of, to_entities
from stbir.gallery.milvus.filter import expression
from stbir.gallery.milvus.store import MilvusStore
from stbir.gallery.milvus.table import MilvusTable
from stbir.gallery.store import open_store
from stbir.gallery.table import VECTOR, schema
from stbir.gallery.versions import rollback
from stbir.storage.access_check import check_access
from stbir.storage.folder import Folder
from stbir.storage.milvus_files import MilvusFileSystem
from stbir.storage.milvus_server import connect, quoted
from tests.gallery.test_stores import (
    DIGEST,
    DIM,
    NAMES,
    SCHEMA,
    ids,
    make_table,
    publish_table,
    row,
    stale_row_ids,
    unit_vectors,
)

pytestmark = pytest.mark.usefixtures("few_queries")


@pytest.fixture
def folder(milvus: str) -> Folder:
    return Folder(f"{milvus}/gallery{next(NAMES)}")


@pytest.fixture
def client(milvus: str) -> MilvusClient:
    return MilvusClient(milvus.replace("milvus://", "http://"))


class TestLite:
    """What milvus-lite lacks of a cluster. A test that fails here tells that a workaround can go."""

    def test_a_data_folder_has_one_process(self, milvus, tmp_path):
        from milvus_lite import MilvusLite

        with MilvusLite(str(tmp_path / "data")), pytest.raises(Exception, match=r"(?i)lock"):
            MilvusLite(str(tmp_path / "data"))

    def test_nlist_is_read_in_the_older_form_only(self, client):
        sizes = {}
        for number, params in enumerate(({"nlist": 2}, {"params": {"nlist": 2}})):
            name = self._collection(client, f"lite{next(NAMES)}")
            index = MilvusClient.prepare_index_params()
            index.add_index("vector", index_type="IVF_FLAT", metric_type="IP", params=params)
            client.create_index(name, index)
            client.load_collection(name)
            found = client.search(name, data=[[1.0] * 8], limit=400, search_params={"params": {"nprobe": 1}})
            sizes[number] = len(found[0])
        assert sizes[0] < 20 < sizes[1]  # a partition of the default of 128, and one of two

    def test_a_token_is_not_checked(self, milvus):
        assert (
            MilvusClient(milvus.replace("milvus://", "http://"), token="wrong:token").list_collections()
            is not None
        )

    def _collection(self, client: MilvusClient, name: str) -> str:
        fields = MilvusClient.create_schema(auto_id=False)
        fields.add_field("row", DataType.INT64, is_primary=True)
        fields.add_field("vector", DataType.FLOAT_VECTOR, dim=8)
        client.create_collection(name, schema=fields)
        vectors = np.random.default_rng(0).normal(size=(400, 8)).astype(np.float32)
        client.insert(name, [{"row": n, "vector": vector} for n, vector in enumerate(vectors)])
        client.flush(name)
        return name


def test_alias_of_the_name_is_the_published_version(folder, client):
    old, new = publish_table(folder, make_table(range(5))), publish_table(folder, make_table(range(9)))
    name = folder.path
    assert client.describe_alias(name)["collection_name"] == f"{name}__v{new.version}"
    found = client.search(name, data=unit_vectors(1), limit=9, output_fields=["photo_id"])[0]
    assert {hit["entity"]["photo_id"] for hit in found} == {row(n)["photo_id"] for n in range(9)}
    rollback(folder, str(old.version))
    assert client.describe_alias(name)["collection_name"] == f"{name}__v{old.version}"


def test_update_that_changes_nothing_copies_nothing(folder):
    gallery = publish_table(folder, make_table(range(5)))
    writer = open_store(folder).open_writer(make_table(range(1)).schema, DIGEST)
    writer.commit()
    writer.delete([])
    assert writer.dataset.version == gallery.version


def test_killed_copy_is_made_again(folder, client):
    gallery = publish_table(folder, make_table(range(5)))
    store = open_store(folder)
    client.create_collection(f"{folder.path}__v{gallery.version + 1}", dimension=3)  # by a killed job
    writer = store.open_writer(make_table(range(1)).schema, DIGEST)
    writer.append(make_table(range(5, 7)))
    writer.commit()
    assert store.open().count_rows() == 7


def interrupt(*_: Any) -> None:
    raise KeyboardInterrupt


def test_killed_deletion_is_repaired_by_the_next_run(folder, monkeypatch):
    publish_table(folder, make_table(range(10)))
    writer = open_store(folder).open_writer(SCHEMA, DIGEST)
    writer.append(make_table(range(10, 11)))
    writer.commit()
    with monkeypatch.context() as patch:
        patch.setattr(MilvusTable, "save", interrupt)
        with pytest.raises(KeyboardInterrupt):
            writer.delete([0, 1])
    writer = open_store(folder).open_writer(SCHEMA, DIGEST)
    assert writer.dataset.count_rows() == 11
    remaining = make_table(range(2, 11)).to_pylist()
    writer.delete(stale_row_ids(writer, remaining))
    assert writer.dataset.count_rows() == 9
    assert ids(folder, None) == {each["photo_id"] for each in remaining}


def test_a_copy_gets_an_index_of_its_own(folder):
    """Its source stores the plan of an index that the copy does not have."""
    plan, store, rows = IndexPlan(4, 4), open_store(folder), make_table(range(300))
    publish_table(folder, rows, plan)
    writer = store.open_writer(rows.schema, DIGEST)
    writer.append(make_table(range(300, 302)))
    writer.commit()
    assert not read_metadata(writer.dataset).plan
    for make_copy in (lambda: writer.dataset, lambda: store.compact(rebuild=False)):
        copy = make_copy()
        built = store.build_indexes(copy, plan, (), build_index)
        index = folder.fs.server.call("describe_index", copy.collection, VECTOR)
        assert (index["index_type"], index["params"]["nlist"]) == ("IVF_FLAT", 4)
        assert built == BuiltIndex(replace(plan, kind="IVF_FLAT"))


def test_columns_with_any_name_and_the_limits_of_values(folder):
    fields = pa.schema([("row", pa.int64()), ("größe in cm", pa.int8()), ("raw", pa.binary())])
    fields = fields.append(pa.field("IN", pa.string())).append(pa.field("Timestamp", pa.float32()))
    columns = schema(DIM, fields)
    photo = {
        **row(1),
        "embedding": unit_vectors(1)[0].tolist(),
        "row": 7,
        "größe in cm": -3,
        "raw": b"\0\xff",
        "IN": "a",
        "Timestamp": 0.5,
    }
    gallery = publish_table(folder, pa.Table.from_pylist([photo], schema=columns))
    where = [Condition("größe in cm", "lt", 0), Condition("row", "eq", 7)]
    where += [Condition("IN", "eq", "a"), Condition("Timestamp", "lt", 1e300)]
    assert gallery.search(unit_vectors(1), 1, where=where)[0][0].photo_id == photo["photo_id"]
    assert gallery.value(photo["photo_id"], "raw") == b"\0\xff"
    large = pa.Table.from_pylist([{**photo, "thumbnail": bytes(50_000)}], schema=columns)
    with pytest.raises(InputError, match=r"column thumbnail: .*66668 bytes.*65535"):
        to_entities(large, 0)
    with pytest.raises(InputError, match=r"column tags: .*cannot be stored in Milvus"):
        columns_of(schema(DIM, pa.schema([("tags", pa.list_(pa.string()))])))


@pytest.mark.parametrize(
    ("value", "kind", "literal"),
    [
        (0.1, pa.float32(), "0.10000000149011612"),
        (-(10**300), pa.float32(), "-1e+300"),
        ("2026-01-01T00:00:00.5", pa.timestamp("ms"), "1767225600500"),
        ("2026-01-01T01:00:00+01:00", pa.timestamp("ns", "UTC"), "1767225600000000000"),
        ("1969-12-31T23:59:59", pa.timestamp("s"), "-1"),
        ('a"b\\c\nd', pa.string(), r'"a\"b\\c\nd"'),
    ],
)
def test_literals(value, kind, literal):
    columns = schema(DIM, pa.schema([("x", kind)]))
    filter = render_filter([Condition("x", "ge", value)], columns)
    assert filter is not None
    assert expression(filter, columns_of(columns)) == f"x >= {literal}"


@pytest.mark.parametrize(
    "uri",
    [
        "milvus://host/name",
        "milvus://host:1/a-b",
        "milvus://host:1/a__b",
        "milvus://host:1",
        "milvus://a:b@host:1/name",
        "milvus://user/a:b@host:1/name",
    ],
)
def test_uri_of_another_form_is_refused_without_its_password(uri):
    with pytest.raises(
        InputError, match="not the URI of a Milvus gallery; use milvus://HOST:PORT/NAME"
    ) as error:
        Folder(uri)
    assert "a:b" not in str(error.value)


def test_unknown_scheme_is_refused():
    with pytest.raises(InputError, match="qdrant"):
        open_gallery("qdrant://host:1/name", DIGEST)


def test_server_that_does_not_answer_is_named_within_seconds():
    with socket.socket() as listening:  # accepts, but never answers
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        start = time.monotonic()
        with pytest.raises(
            InputError, match=r"milvus://127\.0\.0\.1:\d+: no Milvus server answers; check"
        ) as error:
            open_gallery(f"milvus://127.0.0.1:{listening.getsockname()[1]}/name", DIGEST)
        assert time.monotonic() - start < 20
    assert "\n" not in str(error.value)


def test_missing_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "pymilvus", None)
    with pytest.raises(InputError, match=r"pip install 'stbir\[milvus\]'"):
        connect("127.0.0.1:1", "", False)


def test_token_comes_from_the_configuration_of_fsspec_and_is_not_shown(monkeypatch, milvus, caplog):
    caplog.set_level(logging.DEBUG)
    monkeypatch.setitem(conf, "milvus", {"token": "root:secret", "secure": "false"})
    folder = Folder(f"{milvus}/tokens")
    assert isinstance(folder.fs, MilvusFileSystem)
    assert folder.fs._token == "root:secret"
    assert not folder.exists()
    assert "secret" not in repr(folder.fs) + caplog.text


def test_failed_operation_names_the_server(folder, caplog):
    with pytest.raises(InputError, match=r"milvus://127.*: query failed \(.*\); check") as error:
        folder.fs.server.call("query", "nothing", filter="row == 1")
    assert isinstance(error.value.__cause__, MilvusException)
    assert not caplog.records


def test_timeout_of_an_operation_names_the_server(folder, monkeypatch):
    publish_table(folder, make_table(range(3)))
    monkeypatch.setattr("stbir.storage.milvus_server._TIMEOUT_S", -1.0)
    with pytest.raises(InputError, match=r"milvus://127.*: query failed \(.*\); check"):
        folder.fs.server.call("query", folder.path, filter="row >= 0")


class TestFiles:
    """The file system in a collection."""

    def test_access(self, folder):
        assert abs(check_access(folder)) < 60

    def test_files_and_folders(self, folder):
        assert not folder.exists()
        assert folder.list_entries() == []
        large, name = bytes(range(256)) * 2000, 'a "b"/c\\d [é].bin'
        for content in (large, b"", b"small"):
            folder.write(name, content)
            folder.write("e/f.json", b"{}")
            assert (folder.read(name), folder.file_sizes([name])) == (content, {name: len(content)})
        assert folder.list_entries() == ['a "b"', "e"]
        assert folder.list_files("**") == [name, "e/f.json"]
        assert (folder.list_files("e/*.json"), folder.child("e").list_files()) == (["e/f.json"], ["f.json"])
        with folder.open_for_writing("g") as file:
            file.write(b"streamed")
        with folder.open("g") as file:
            assert file.read(3) == b"str"
        with pytest.raises(InputError, match=r"No such file|nothing"):
            folder.read("nothing")
        folder.remove("e")
        folder.remove("g")
        assert folder.list_files("**") == [name]
        folder.remove()
        assert not folder.exists()

    def test_one_of_many_creates_a_file(self, folder):
        results: list[Any] = []

        def create(n: int) -> None:
            try:
                folder.create("lock", str(n).encode())
                results.append(n)
            except FileExistsError:
                results.append(None)

        threads = [threading.Thread(target=create, args=(n,)) for n in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        [winner] = [n for n in results if n is not None]
        assert len(results) == 6
        assert folder.read("lock") == str(winner).encode()
        folder.remove("lock")
        folder.create("lock", b"again")

    def test_reserved_file_of_a_killed_process_is_empty(self, folder):
        folder.write("other", b"")
        folder.fs._reserve(folder.path_of("lock"))
        assert (folder.list_files(), folder.read("lock")) == (["lock", "other"], b"")
        with pytest.raises(FileExistsError):
            folder.create("lock", b"")


def test_quoted_text_is_one_literal():
    assert quoted('"; \\') == r'"\"; \\"'


def test_thumbnail_is_stored_as_text(folder, client):
    publish_table(folder, make_table(range(3)))
    [stored] = client.query(folder.path, filter="row == 1", output_fields=["thumbnail"])
    assert base64.b64decode(stored["thumbnail"]) == row(1)["thumbnail"]


def test_pymilvus_is_imported_for_a_gallery_in_milvus_only():
    script = "import sys, stbir.gallery.publish; sys.exit('pymilvus' in sys.modules or 'grpc' in sys.modules)"
    subprocess.run([sys.executable, "-c", script], check=True, timeout=300)


@pytest.mark.parametrize("tag", ["published", "release-12", "before_sale", "_2d_", "größe"])
def test_aliases_stand_for_one_tag_each(folder, tag):
    store = MilvusStore(folder)
    assert store._tag(store._alias(tag)) == tag
    assert store._alias(tag).isascii()
    assert MilvusStore(Folder(f"{folder.uri}0"))._tag(store._alias(tag)) is None
