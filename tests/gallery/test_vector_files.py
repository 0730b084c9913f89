"""Imports of vectors in plain files: each row is checked, and a refusal names file and row."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stbir.errors import InputError
from stbir.gallery.export_import import import_table
from stbir.gallery.gallery import open_table
from stbir.gallery.rows import load_vectors
from stbir.gallery.vector_files import read_vectors
from stbir.storage.folder import Folder
from tests.gallery.test_gallery import DIM, make_table, unit_vectors

ROWS = 30
VECTORS = unit_vectors(ROWS)
WITHOUT_VECTORS = make_table(VECTORS).replace_schema_metadata(None).drop_columns(["embedding"])


def write(folder: Path, embedding: pa.Array, name: str = "a.parquet", start: int = 0) -> Folder:
    folder.mkdir(exist_ok=True)
    ids = pa.array([f"photo-{start + i}" for i in range(len(embedding))], pa.string())
    table = pa.table({"photo_id": ids, "category": ids, "embedding": embedding})
    pq.write_table(table, folder / name)
    return Folder(str(folder))


def with_row(row: int, vector: object) -> pa.Array:
    return pa.array([*VECTORS[:row].tolist(), vector, *VECTORS[row + 1 :].tolist()], pa.list_(pa.float32()))


def imported(source: Folder, tmp_path: Path) -> np.ndarray:
    folder = Folder(str(tmp_path / "gallery"))
    return load_vectors(open_table(folder, import_table(source, folder)))


@pytest.mark.parametrize(
    "data_type",
    [
        pa.list_(pa.float16()),
        pa.list_(pa.float64()),
        pa.large_list(pa.float32()),
        pa.list_(pa.float64(), DIM),
        pa.list_(pa.int64()),
    ],
    ids=str,
)
def test_lists_of_all_numeric_types_are_imported_as_unit_vectors(tmp_path, data_type):
    values = np.random.default_rng(0).integers(-9, 10, (ROWS, DIM)) + 0.0 * VECTORS
    if pa.types.is_integer(data_type.value_type):
        values = values.astype(int)
    elif pa.types.is_float16(data_type.value_type):
        values = values.astype(np.float16)
    rows = pa.array([list(row) for row in values], data_type)
    expected = values / np.linalg.norm(values.astype(float), axis=1, keepdims=True)
    assert imported(write(tmp_path / "in", rows), tmp_path) == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize(
    ("vector", "fault"),
    [
        ([1.0] * (DIM - 1), f"row 1 has {DIM - 1} of {DIM} numbers"),
        ([1.0] * (DIM + 1), f"row 1 has {DIM + 1} of {DIM} numbers"),
        ([], f"row 1 has 0 of {DIM} numbers"),
        (None, "row 1 has no vector"),
        ([None, *[1.0] * (DIM - 1)], "row 1 has a null in its vector"),
        ([float("nan")] * DIM, "row 1 has a zero or non-finite vector"),
        ([float("inf"), *[0.0] * (DIM - 1)], "row 1 has a zero or non-finite vector"),
        ([0.0] * DIM, "row 1 has a zero or non-finite vector"),
    ],
)
def test_invalid_vector_is_refused_with_file_and_row(tmp_path, vector, fault):
    source = write(tmp_path / "in", with_row(1, vector))
    with pytest.raises(InputError, match=f"a.parquet: column embedding: {fault}"):
        import_table(source, Folder(str(tmp_path / "gallery")))
    assert not (tmp_path / "gallery").exists()


def test_rows_whose_lengths_add_up_are_refused(tmp_path):
    rows = VECTORS[:4].tolist()
    rows[1], rows[2] = rows[1][:-1], [*rows[2], 0.5]
    with pytest.raises(InputError, match=f"row 1 has {DIM - 1} of {DIM} numbers"):
        import_table(write(tmp_path / "in", pa.array(rows)), Folder(str(tmp_path / "gallery")))


@given(st.lists(st.integers(0, 4), min_size=1, max_size=8))
def test_vectors_of_any_lengths_are_imported_only_if_all_are_equal(tmp_path_factory, lengths):
    source = write(
        tmp_path_factory.mktemp("in"), pa.array([[1.0] * n for n in lengths], pa.list_(pa.float32()))
    )
    if len(set(lengths)) == 1 and lengths[0]:
        assert sum(len(table) for table in read_vectors(source)) == len(lengths)
    else:
        with pytest.raises(InputError, match=r"a\.parquet: column embedding: row \d"):
            list(read_vectors(source))


def test_float64_vectors_outside_the_range_of_float32_keep_their_direction(tmp_path):
    rows = pa.array([[3e100, 4e100], [3e-100, 4e-100]])
    assert imported(write(tmp_path / "in", rows), tmp_path) == pytest.approx(np.array([[0.6, 0.8]] * 2))


def test_second_file_of_another_dimension_is_refused(tmp_path):
    write(tmp_path / "in", pa.array(VECTORS.tolist()))
    source = write(tmp_path / "in", pa.array(VECTORS[:, :4].tolist()), "b.parquet", start=100)
    with pytest.raises(InputError, match=f"b.parquet: column embedding: row 0 has 4 of {DIM} numbers"):
        import_table(source, Folder(str(tmp_path / "gallery")))


def test_files_of_other_columns_are_refused_but_other_string_types_are_cast(tmp_path):
    source = write(tmp_path / "in", pa.array(VECTORS.tolist()))
    table = pq.read_table(tmp_path / "in" / "a.parquet")
    ids = pa.array([f"other-{i}" for i in range(ROWS)], pa.large_string())
    table = table.set_column(0, "photo_id", ids).set_column(1, "category", ids.dictionary_encode())
    pq.write_table(table, tmp_path / "in" / "b.parquet")
    assert len(imported(source, tmp_path)) == 2 * ROWS
    pq.write_table(table.append_column("price", pa.nulls(ROWS, pa.int64())), tmp_path / "in" / "b.parquet")
    with pytest.raises(InputError, match=r"b\.parquet: .*give all files the same columns"):
        import_table(source, Folder(str(tmp_path / "gallery")))


@pytest.mark.parametrize(
    ("column", "values", "message"),
    [
        ("category", None, "column category is missing"),
        ("photo_id", pa.array(["photo-0"] * ROWS), "photo_id: 'photo-0' is not unique"),
        ("photo_id", pa.array(range(ROWS)), "column photo_id: int64; store it as strings"),
        ("category", pa.nulls(ROWS, pa.string()), "category: 30 rows have none"),
        ("embedding", pa.array(["1 2 3"] * ROWS), "column embedding: string; store it as lists of numbers"),
        ("embedding", pa.array([["1"]] * ROWS), "column embedding: list.*; store it as lists of numbers"),
    ],
)
def test_invalid_columns_are_refused(tmp_path, column, values, message):
    table = WITHOUT_VECTORS.append_column("embedding", pa.array(VECTORS.tolist()))
    table = table.drop_columns([column])
    if values is not None:
        table = table.append_column(column, values)
    (tmp_path / "in").mkdir()
    pq.write_table(table, tmp_path / "in" / "a.parquet")
    with pytest.raises(InputError, match=message):
        import_table(Folder(str(tmp_path / "in")), Folder(str(tmp_path / "gallery")))


@pytest.mark.parametrize("data", [b"", b"id;vector\n1;2\n", b"PAR1 but no footer PAR1"])
def test_file_that_is_not_parquet_is_refused_by_name(tmp_path, data):
    (tmp_path / "a.parquet").write_bytes(data)
    with pytest.raises(InputError, match=r"a\.parquet: not a readable Parquet file"):
        import_table(Folder(str(tmp_path)), Folder(str(tmp_path / "gallery")))


def test_folder_without_rows_is_refused(tmp_path):
    write(tmp_path / "in", pa.array([], pa.list_(pa.float32())))
    with pytest.raises(InputError, match="no rows"):
        import_table(Folder(str(tmp_path / "in")), Folder(str(tmp_path / "gallery")))


def test_damaged_arrays_are_refused_by_name(tmp_path):
    np.save(tmp_path / "vectors.npy", VECTORS)
    source, gallery = Folder(str(tmp_path)), Folder(str(tmp_path / "gallery"))
    with pytest.raises(InputError, match=r"rows\.parquet: missing"):
        import_table(source, gallery)
    pq.write_table(WITHOUT_VECTORS, tmp_path / "rows.parquet")
    whole = (tmp_path / "vectors.npy").read_bytes()
    for data, message in [(whole[:-4], "ends before row 29"), (b"not an array", "not a NumPy array")]:
        (tmp_path / "vectors.npy").write_bytes(data)
        with pytest.raises(InputError, match=rf"vectors\.npy: {message}"):
            import_table(source, gallery)
    np.save(tmp_path / "vectors.npy", VECTORS.ravel())
    with pytest.raises(InputError, match=r"vectors\.npy: 480 of float32, and 30 rows"):
        import_table(source, gallery)
