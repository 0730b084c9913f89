"""The columns of a gallery's table as fields of a Milvus collection. Each value reads back equal."""

import base64
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from stbir.errors import InputError
from stbir.gallery.rows import extract_vectors
from stbir.gallery.table import ROW_ID, VECTOR, dimension

KEY = "row"  # the primary key: the position of a row, from 0 without gaps
_MAX_BYTES = 65_535  # of a VARCHAR
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]*")
_KEYWORDS = frozenset(  # of filters
    ("and", "or", "not", "in", "is", "null", "like", "exists", "true", "false", "iso", "interval")
)
_SYSTEM_FIELDS = ("RowID", "Timestamp")  # of each collection


@dataclass(frozen=True)
class Column:
    """A column, and the name and type of its field."""

    field: pa.Field
    name: str
    datatype: str

    def encode(self, values: pa.ChunkedArray, photo_ids: Sequence[str]) -> Any:
        """The values of a field, one a row. Raises InputError, naming column and photo, for one too large."""
        if self.datatype == "FLOAT_VECTOR":
            return extract_vectors(pa.table({VECTOR: values}))
        if pa.types.is_timestamp(self.field.type):
            values = values.cast(pa.int64())
        encoded = values.to_pylist()
        if _is_binary(self.field.type):
            encoded = [None if each is None else base64.b64encode(each).decode() for each in encoded]
        for value, photo_id in zip(encoded, photo_ids, strict=True):
            if isinstance(value, str) and 4 * len(value) > _MAX_BYTES and len(value.encode()) > _MAX_BYTES:
                problem = f"{photo_id!r} has {len(value.encode())} bytes, and Milvus stores {_MAX_BYTES}"
                raise InputError(f"column {self.field.name}: {problem}; shorten it, or drop the column")
            if isinstance(value, int) and value >= 2**63:
                raise InputError(f"column {self.field.name}: {photo_id!r} has {value}; Milvus stores int64")
        return encoded

    def decode(self, values: list[Any]) -> pa.Array:
        """The values of the column."""
        kind = self.field.type
        if self.datatype == "FLOAT_VECTOR":
            flat = np.asarray(values, np.float32).ravel()
            return pa.FixedSizeListArray.from_arrays(pa.array(flat), kind.list_size).cast(kind)
        if _is_binary(kind):
            return pa.array([None if each is None else base64.b64decode(each) for each in values], kind)
        stored = {"INT64": pa.int64(), "DOUBLE": pa.float64()}.get(self.datatype, kind)
        return pa.array(values, stored).cast(kind)

    def definition(self) -> dict[str, Any]:
        """The arguments of `add_field`."""
        options = {"VARCHAR": {"max_length": _MAX_BYTES, "nullable": True}}
        options["FLOAT_VECTOR"] = {"dim": self.field.type.list_size} if self.field.name == VECTOR else {}
        return {
            "field_name": self.name,
            "datatype": self.datatype,
            **options.get(self.datatype, {"nullable": True}),
        }


def columns_of(schema: pa.Schema) -> dict[str, Column]:
    """The columns by name. Raises InputError for a type that Milvus cannot hold exactly."""
    dimension(schema)
    return {field.name: Column(field, _name(n, field), _datatype(field)) for n, field in enumerate(schema)}


def definitions(schema: pa.Schema) -> list[dict[str, Any]]:
    """The fields of the collection, for `MilvusServer.create_collection`."""
    key = {"field_name": KEY, "datatype": "INT64", "is_primary": True}
    return [key, *(column.definition() for column in columns_of(schema).values())]


def to_entities(rows: pa.Table, first: int) -> list[dict[str, Any]]:
    """Rows as Milvus takes them, with keys from `first` on. Raises InputError as `Column.encode`."""
    photo_ids = rows["photo_id"].to_pylist()
    columns = columns_of(rows.schema).values()
    values = {column.name: column.encode(rows[column.field.name], photo_ids) for column in columns}
    values[KEY] = range(first, first + len(rows))
    return [dict(zip(values, each, strict=True)) for each in zip(*values.values(), strict=True)]


def to_batch(entities: list[dict[str, Any]], columns: Sequence[Column], with_row_id: bool) -> pa.RecordBatch:
    """The rows that Milvus returned, in the order given."""
    arrays = [column.decode([entity[column.name] for entity in entities]) for column in columns]
    fields = [column.field for column in columns]
    if with_row_id:
        arrays.append(pa.array([entity[KEY] for entity in entities], pa.uint64()))
        fields.append(pa.field(ROW_ID, pa.uint64()))
    return pa.RecordBatch.from_arrays(arrays, schema=pa.schema(fields))


def _name(number: int, field: pa.Field) -> str:
    """The name of the column if Milvus allows it, else one by its position."""
    name = str(field.name)
    is_taken = name in (KEY, *_SYSTEM_FIELDS) or name.lower() in _KEYWORDS or name.startswith("column_")
    return name if _NAME.fullmatch(name) and not is_taken else f"column_{number}"


def _datatype(field: pa.Field) -> str:
    kind = field.type
    if field.name == VECTOR:
        return "FLOAT_VECTOR"
    if pa.types.is_string(kind) or pa.types.is_large_string(kind) or _is_binary(kind):
        return "VARCHAR"
    if pa.types.is_boolean(kind):
        return "BOOL"
    if pa.types.is_integer(kind) or pa.types.is_timestamp(kind):
        return "INT64"
    if pa.types.is_floating(kind):
        return "DOUBLE"
    remedy = "drop it, or make it text, a number or a time"
    raise InputError(f"column {field.name}: {kind} cannot be stored in Milvus; {remedy}")


def _is_binary(kind: pa.DataType) -> bool:
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind))
