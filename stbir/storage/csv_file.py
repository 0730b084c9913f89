"""A CSV or TSV file as text columns, and the types of its columns, decided over all rows.

A column has a type only if each of its values is written as that type writes it, so that codes such as 00123,
8e5 or NA stay text. Only an empty field is null.
"""

import os
from collections.abc import Iterable, Iterator
from typing import BinaryIO

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pc_csv

_BLOCK_BYTES = 2**24  # the longest row
_DATE = r"\d{4}-\d{2}-\d{2}"
_TIME = r"[ T]\d{2}:\d{2}(:\d{2}(\.\d{1,6})?)?"
# Type and the pattern of its values, the strictest first. Up to 15 digits are exact in float64.
_TYPES: tuple[tuple[pa.DataType, str], ...] = (
    (pa.bool_(), r"true|false|True|False|TRUE|FALSE"),
    (pa.int64(), r"0|-?[1-9]\d{0,18}"),
    (pa.float64(), r"-?((0|[1-9]\d{0,14})(\.\d+)?|\.\d+)([eE][+-]\d{1,2})?"),
    (pa.timestamp("us"), rf"{_DATE}({_TIME})?"),
    (pa.timestamp("us", tz="UTC"), rf"{_DATE}{_TIME}(Z|[+-]\d{{2}}:?\d{{2}})"),
)


def open_csv(file: BinaryIO, delimiter: str = ",") -> pc_csv.CSVStreamingReader:
    """The rows in batches, each column as text. Quoted fields can have line breaks.

    Raises ArrowInvalid, also while it is read, for a file that is not CSV.
    """
    read = pc_csv.ReadOptions(block_size=_BLOCK_BYTES)
    parse = pc_csv.ParseOptions(delimiter=delimiter, newlines_in_values=True)
    names = pc_csv.open_csv(file, read, parse).schema.names
    file.seek(0)
    types = dict.fromkeys(names, pa.string())
    convert = pc_csv.ConvertOptions(column_types=types, null_values=[""], strings_can_be_null=True)
    return pc_csv.open_csv(file, read, parse, convert)


def read_batches(
    file: BinaryIO, reader: Iterable[pa.RecordBatch], delimiter: str = ","
) -> Iterator[pa.RecordBatch]:
    """The batches of a reader. Raises ArrowInvalid at the end if the last quoted field has no end."""
    last = ""
    for batch in reader:
        yield batch
        last = (batch.column(batch.num_columns - 1)[-1].as_py() or "") if len(batch) else last
    # The end of the file, from the last delimiter.
    unterminated = f'{delimiter}"'.encode() + last.encode().replace(b'"', b'""')
    file.seek(0, os.SEEK_END)
    file.seek(max(0, file.tell() - len(unterminated)))
    if file.read() == unterminated:
        raise pa.ArrowInvalid("the last field begins with a quote and does not end with one")


def infer_types(batches: Iterable[pa.RecordBatch], schema: pa.Schema) -> pa.Schema:
    """The schema of a CSV file with the first type that all values of a column have, else text."""
    candidates = {name: list(_TYPES) for name in schema.names}
    has_values = dict.fromkeys(schema.names, False)
    for batch in batches:
        for name in schema.names:
            values = batch[name].drop_null()
            has_values[name] |= len(values) > 0
            candidates[name] = [each for each in candidates[name] if _fits(values, *each)]
    types = [
        candidates[name][0][0] if has_values[name] and candidates[name] else pa.string()
        for name in schema.names
    ]
    return pa.schema(list(zip(schema.names, types, strict=True)))


def _fits(values: pa.Array, kind: pa.DataType, pattern: str) -> bool:
    if not pc.all(pc.match_substring_regex(values, f"^({pattern})$"), min_count=0).as_py():
        return False
    try:
        values.cast(kind)
    except pa.ArrowInvalid:  # e.g. an integer of more than 64 bits, or 30 February
        return False
    return True
