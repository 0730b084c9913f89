"""Tables: values stay as written, URIs resolve as on a disk, and only allowed schemes are read."""

import csv
import io
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stbir.catalogue.photo import Photo
from stbir.catalogue.registry import open_catalogue
from stbir.data.validation import Fault
from stbir.errors import InputError
from stbir.storage.csv_file import infer_types, open_csv, read_batches
from stbir.storage.folder import Folder
from tests.catalogue.test_catalogue import read_all
from tests.data.image_files import png, write_files


def to_csv(rows: list[list[str]], **options: Any) -> bytes:
    text = io.StringIO(newline="")
    csv.writer(text, **options).writerows(rows)
    return text.getvalue().encode()


def read_text(data: bytes) -> list[list[str | None]]:
    file = io.BytesIO(data)
    batches = list(read_batches(file, open_csv(file)))
    return [list(row.values()) for batch in batches for row in batch.to_pylist()]


def types(*values: str) -> str:
    file = io.BytesIO(to_csv([["x", "y"], *([value, "-"] for value in values)]))
    reader = open_csv(file)
    return str(infer_types(reader, reader.schema).field("x").type)


VALUE = st.text(st.characters(blacklist_categories=["Cs"], blacklist_characters="\0\r"), max_size=8)


@given(st.lists(st.tuples(VALUE, VALUE), min_size=1, max_size=6), st.sampled_from(["\n", "\r\n"]))
def test_any_text_is_read_as_written(rows: list[tuple[str, str]], line_break: str) -> None:
    data = to_csv([["a", "b"], *map(list, rows)], lineterminator=line_break, quoting=csv.QUOTE_ALL)
    assert read_text(data) == [[value or None for value in row] for row in rows]


@given(st.text(',"\r\na', max_size=6), st.sampled_from(["", "\n", "\r\n"]))
def test_the_last_field_is_refused_only_without_its_closing_quote(value: str, line_break: str) -> None:
    field = '"' + value.replace('"', '""')
    assert read_text(f'a,b\nx,{field}"{line_break}'.encode()) == [["x", value or None]]
    with pytest.raises(pa.ArrowInvalid):
        read_text(f"a,b\nx,{field}{line_break}".encode())


@given(st.lists(VALUE, min_size=1, max_size=6))
def test_a_typed_value_is_the_written_one(values: list[str]) -> None:
    """Numbers are written in many ways, but each column that has a type has numbers alone."""
    if types(*values) in ("int64", "double"):
        assert all(value == "" or float(value) is not None for value in values)
        assert not any(value.lstrip("-")[:1] == "0" and value.lstrip("-")[1:2].isdigit() for value in values)


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        (("1", "-20", ""), "int64"),
        (("1", "2.50", "1e-05"), "double"),
        (("true", "False"), "bool"),
        (("2026-01-02", "2026-01-02 03:04"), "timestamp[us]"),
        (("2026-01-02T03:04:05Z",), "timestamp[us, tz=UTC]"),
        (("00123", "7"), "string"),
        (("-07",), "string"),
        (("8e5", "1e3"), "string"),
        (("NA", "1"), "string"),
        (("nan",), "string"),
        (("inf",), "string"),
        (("+49123",), "string"),
        ((" 1",), "string"),
        (("12345678901234567890",), "string"),
        (("1234567890123456789.5",), "string"),
        (("2026-02-30",), "string"),
        (("", ""), "string"),
    ],
)
def test_a_column_has_a_type_only_if_all_values_are_written_in_it(values: tuple[str, ...], kind: str) -> None:
    assert types(*values) == kind


def test_the_type_is_decided_over_the_whole_file(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stbir.storage.csv_file._BLOCK_BYTES", 64)
    assert types(*["1"] * 500, "x") == "string"
    assert types(*["1"] * 500, "1.5") == "double"


def test_the_columns_of_a_csv_file(tmp_path: Path) -> None:
    rows = [["photo_id", "uri", "category", "sku", "n", "when", "text"]]
    rows += [["00123", "0.png", "NA", "00123", "1", "2026-01-02T00:00Z", "501"]]
    rows += [["null", "1.png", "", "7", "", "", "two\nlines"]]
    (tmp_path / "t.csv").write_bytes(to_csv(rows))
    write_files(tmp_path, {"0.png": png(0), "1.png": png(1)})
    one, two = read_all(open_catalogue(f"table:{tmp_path}/t.csv"))
    assert one == Photo("00123", "NA", ("0.png", "00123", 1, datetime(2026, 1, 2, tzinfo=UTC), "501"), png(0))
    assert two == Photo("null", "unknown", ("1.png", "7", None, None, "two\nlines"), png(1))
    typed = open_catalogue(f"table:{tmp_path}/t.csv", columns=["sku:int", "n:text"])
    assert [str(typed.fields.field(name).type) for name in ("sku", "n")] == ["int64", "string"]
    assert [item.metadata[1:3] for item in read_all(typed)] == [(123, "1"), (7, None)]  # type: ignore[union-attr]


def test_tsv_and_json_lines_have_the_rows_of_the_csv_file(tmp_path: Path) -> None:
    rows = [["photo_id", "uri", "n", "text"], ["a", "0.png", "1", 'a, "red"\tseat'], ["b", "1.png", "", "x"]]
    (tmp_path / "t.csv").write_bytes(to_csv(rows))
    (tmp_path / "t.tsv").write_bytes(to_csv(rows, delimiter="\t"))
    objects: list[dict[str, Any]] = [{**dict(zip(rows[0], rows[1], strict=True)), "n": 1}]
    objects += [{"photo_id": "b", "uri": "1.png", "text": "x"}]
    (tmp_path / "t.jsonl").write_text("\n".join(map(json.dumps, objects)) + "\n\n")
    write_files(tmp_path, {"0.png": png(0), "1.png": png(1)})
    expected = read_all(open_catalogue(f"table:{tmp_path}/t.csv"))
    assert expected[0] == Photo("a", "unknown", ("0.png", 1, 'a, "red"\tseat'), png(0))
    for name in ("t.tsv", "t.jsonl"):
        assert read_all(open_catalogue(f"table:{tmp_path}/{name}")) == expected


@pytest.mark.parametrize("line", ['{"photo_id": "a", "uri', "[1]", '{"photo_id": "b", "uri": 7}'])
def test_an_invalid_line_of_json_is_refused(tmp_path: Path, line: str) -> None:
    (tmp_path / "t.jsonl").write_text('{"photo_id": "a", "uri": "0.png"}\n' + line)
    with pytest.raises(InputError, match=r"t\.jsonl: not a readable table \(") as error:
        read_all(open_catalogue(f"table:{tmp_path}/t.jsonl"))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("table", "columns", "message"),
    [
        (
            b"photo_id,uri,sku\n1,x,ab\n",
            ["sku:int"],
            r"column sku: .*make it one type, or give --column sku:text",
        ),
        (b"photo_id,uri\n1,x\n", ["sku:int"], "--column sku: .* has no such column among photo_id, uri"),
        (b"photo_id,uri\n1,x\n", ["photo_id:int"], "--column photo_id:int: this column is always text"),
        (b"photo_id,uri\n1,x\n", ["uri:date"], "--column uri:date: not NAME:TYPE with TYPE one of text, int"),
        (b"photo_id,uri,uri\n1,x,y\n", [], "several columns are named uri"),
        (b'photo_id,uri,text\n1,x,"cut\nin a field', [], "t.csv: not a readable table .*begins with a quote"),
        (b"photo_id,uri\n1,x\n2\n", [], "t.csv: not a readable table"),
        (b"photo_id,uri\n1,caf\xe9\n", [], "t.csv: not a readable table"),
    ],
)
def test_an_invalid_table_is_refused(tmp_path: Path, table: bytes, columns: list[str], message: str) -> None:
    (tmp_path / "t.csv").write_bytes(table)
    with pytest.raises(InputError, match=message) as error:
        list(open_catalogue(f"table:{tmp_path}/t.csv", columns=columns).parts())
    assert "\n" not in str(error.value)


def test_uris_in_a_bucket_resolve_as_on_a_disk(s3: str, tmp_path: Path) -> None:
    uris = ["x.png", "sub//x.png", "../above.png", "./x.png", "../../../../x.png", "a::b#c?.png"]
    names = ["shop/x.png", "shop/sub//x.png", "above.png", "shop/a::b#c?.png"]
    table = to_csv([["photo_id", "uri"], *([uri, uri] for uri in uris)])
    bucket = Folder(f"{s3}/uris")
    for name in names:
        bucket.fs.pipe_file(bucket.path_of(name), name.encode())
    bucket.write("shop/t.csv", table)
    items = {item.photo_id: item for item in read_all(open_catalogue(f"table:{bucket.uri}/shop/t.csv"))}
    expected = dict(zip(uris, ["shop/x.png", "shop/sub//x.png", "above.png", "shop/x.png"], strict=False))
    expected["a::b#c?.png"] = "shop/a::b#c?.png"
    missing = items.pop("../../../../x.png")
    assert isinstance(missing, Fault)
    assert (missing.reason, missing.file) == ("photo missing", f"{s3}/x.png")  # not above the bucket
    assert {key: item.data.decode() for key, item in items.items()} == expected  # type: ignore[union-attr]


@pytest.mark.parametrize(
    "uri", ["http://127.0.0.1:1/x", "HTTP://h/x", "memory://x", "ftp://h/x", "zip://x::file://y"]
)
def test_other_schemes_are_read_only_if_they_are_named(tmp_path: Path, uri: str) -> None:
    (tmp_path / "t.csv").write_bytes(to_csv([["photo_id", "uri"], ["1", uri]]))
    scheme = uri.partition("://")[0].lower()
    [fault] = read_all(open_catalogue(f"table:{tmp_path}/t.csv"))
    assert isinstance(fault, Fault)
    assert (fault.reason, fault.detail) == ("scheme is not allowed", f"{scheme}; name it with --allow-scheme")
    if scheme == "memory":
        [fault] = read_all(open_catalogue(f"table:{tmp_path}/t.csv", schemes=["memory"]))
        assert isinstance(fault, Fault)
        assert fault.reason == "photo missing"
