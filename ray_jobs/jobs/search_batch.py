"""Search a GALLERY with many queries: Parquet files of sketches, texts or vectors in, HITS out."""

import argparse
import json
import logging
import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import ray.data
from pydantic import TypeAdapter, ValidationError

from ray_jobs.cluster import placement
from ray_jobs.cluster.connection import connect
from stbir.config.choices import Backend
from stbir.embedding.batch_search import (
    HITS,
    QUERY_COLUMNS,
    QUERY_ID,
    QueryEncoders,
    SearchParams,
    search_table,
)
from stbir.errors import InputError, JobFailedError
from stbir.gallery.filters import Condition
from stbir.gallery.gallery import open_gallery, open_version
from stbir.gallery.local_cache import CacheConfig
from stbir.model import checkpoint
from stbir.model.backend import use_backend
from stbir.model.graph_cache import DEFAULT_FOLDER
from stbir.storage.folder import Folder
from stbir.storage.lock import artifact_lock
from stbir.storage.manifest import MANIFEST_FILE, Manifest, content_digest, write_manifest

log = logging.getLogger(__name__)
_GROUPS = pa.schema([("file", pa.string()), ("group", pa.int32()), ("rows", pa.int64())])
_QUERIES = pa.schema(
    [
        (QUERY_ID, pa.string()),
        ("vector", pa.list_(pa.float32())),
        ("sketch", pa.large_binary()),
        ("text", pa.large_string()),
    ]
)
_HITS, _REFUSED = "hits.parquet", "refused.parquet"
_GalleryArgs = tuple[str, str, int, CacheConfig | None]  # of `open_gallery`


class SearchActor:
    """Holds the gallery and the encoders that the queries need."""

    def __init__(
        self, model: str, columns: list[str], params: SearchParams, gallery: _GalleryArgs, backend: Backend
    ) -> None:
        self._gallery, self._params = open_gallery(*gallery), params
        self._encoders = QueryEncoders(
            checkpoint.load(model, part="sketch") if "sketch" in columns else None,
            checkpoint.load(model, part="text") if "text" in columns or params.without else None,
            checkpoint.load(model, part="gate") if {"sketch", "text"} <= set(columns) else None,
        )
        if self._encoders.sketch is not None:
            use_backend(self._encoders.sketch, "sketch", backend, DEFAULT_FOLDER)
        if self._encoders.text is not None:
            use_backend(self._encoders.text, "text", backend, DEFAULT_FOLDER)

    def __call__(self, queries: pa.Table) -> pa.Table:
        """Queries → rows of HITS."""
        return search_table(self._gallery, self._encoders, queries, self._params)


def search_batch(args: argparse.Namespace) -> dict[str, Any]:
    """Read the queries, search, and write hits; the manifest comes last and counts every query."""
    out = Folder(args.out)
    queries, names = _query_files(args.queries)
    groups, columns = _inspect(queries, names)
    model, digest = checkpoint.resolve_pinned(args.checkpoint)
    gallery = Folder(args.gallery).uri
    version = open_version(gallery, digest).version
    filters = args.category, _parse_where(args.where)
    params = SearchParams(args.k, args.sketch_weight, *filters, _check_texts(args.without), args.group)
    cache = CacheConfig(Path(args.cache)) if args.cache else None
    with artifact_lock(out, "hits") as lock:
        connect()
        # One CPU for the read tasks, which would never start without it.
        placement.require_resources("searching", 1 + math.ceil(placement.ENCODER_CPUS), args.resource_timeout)
        hits = (
            ray.data.from_arrow([groups.slice(n, 1) for n in range(len(groups))] or [groups])
            .map_batches(
                _read_group,
                batch_size=None,
                batch_format="pyarrow",
                fn_kwargs={"queries": queries, "columns": columns, "batch": args.batch},
            )
            .map_batches(
                SearchActor,
                batch_size=args.batch,
                batch_format="pyarrow",
                fn_constructor_args=(model, columns, params, (gallery, digest, version, cache), args.backend),
                compute=ray.data.ActorPoolStrategy(min_size=1, max_size=args.workers),
                num_cpus=placement.ENCODER_CPUS,
            )
        )
        counts = {"in": sum(groups["rows"].to_pylist()), **_write(out, hits)}
        check_counts(counts, args.max_error_rate, out)
        details = {"gallery_version": version, "k": args.k, "asked_by": columns}
        manifest = Manifest("hits", content_digest(out, [_HITS, _REFUSED]), counts, digest, details)
        lock.check()
        write_manifest(out, manifest, out.file_sizes([_HITS, _REFUSED]))
        return {"out": args.out, "checkpoint": digest, **counts, **details}


def check_counts(counts: dict[str, int], max_error_rate: float, out: Folder) -> None:
    """Raises JobFailedError for lost queries, or if the share of invalid queries exceeds the maximum."""
    if counts["in"] != (outcomes := counts["answered"] + counts["refused"]):
        message = f"{counts['in']} queries went in, but {outcomes} came out"
        raise JobFailedError(f"{message}; not published", counts)
    if counts["refused"] > max_error_rate * counts["in"]:
        message = f"{counts['refused']} of {counts['in']} queries are invalid"
        raise JobFailedError(f"{message}, see {out.uri}/{_REFUSED}; not published", counts)


def _query_files(uri: str) -> tuple[Folder, list[str]]:
    """The folder and the names of the Parquet files; `uri` is a folder or a file."""
    folder = Folder(uri)
    parent, _, name = folder.uri.rpartition("/")
    names = folder.list_files("*.parquet")
    if names or not name.endswith(".parquet") or not folder.exists():
        return folder, names
    return Folder(parent or "/"), [name]


def _inspect(queries: Folder, names: list[str]) -> tuple[pa.Table, list[str]]:
    """The row groups of the files, one a row: file, group and rows; and the query columns that files have."""
    if not names:
        raise InputError(
            f"--queries: {queries.uri}: no *.parquet here; write one with {QUERY_ID} and a query"
        )
    groups, available = [], set[str]()
    for name in names:
        with _open_parquet(queries, name) as parquet:
            _check_types(parquet.schema_arrow, f"{queries.uri}/{name}")
            available |= set(parquet.schema_arrow.names)
            rows = [parquet.metadata.row_group(n).num_rows for n in range(parquet.num_row_groups)]
        groups += [{"file": name, "group": n, "rows": count} for n, count in enumerate(rows)]
    columns = [name for name in QUERY_COLUMNS if name in available]
    if not columns:
        raise InputError(
            f"--queries: {queries.uri}: needs the column {QUERY_ID} and one of {', '.join(QUERY_COLUMNS)}"
        )
    return pa.Table.from_pylist(groups, schema=_GROUPS), columns


@contextmanager
def _open_parquet(queries: Folder, name: str) -> Iterator[pq.ParquetFile]:
    """Open a file of queries. Raises InputError, naming it, also for errors while it is read."""
    with queries.open(name) as file:
        try:
            yield pq.ParquetFile(file)
        except (pa.ArrowException, OSError) as error:
            reason = " ".join(str(error).split())[:200]
            message = f"--queries: {queries.uri}/{name}: not a readable Parquet file ({reason})"
            raise InputError(f"{message}; write it again") from error


def _check_types(schema: pa.Schema, path: str) -> None:
    if QUERY_ID not in schema.names:
        raise InputError(f"--queries: {path}: needs the column {QUERY_ID}")
    for field in _QUERIES:
        if field.name in schema.names:
            actual = schema.field(field.name).type
            try:
                pa.nulls(0, actual).cast(field.type)
            except pa.ArrowException as error:
                message = f"--queries: {path}: column {field.name} is {actual}, needs {field.type}"
                raise InputError(message) from error


def _read_group(groups: pa.Table, queries: Folder, columns: list[str], batch: int) -> Iterator[pa.Table]:
    """The queries of row groups, in tables of at most `batch` rows. A column that a file lacks is null."""
    schema = pa.schema([_QUERIES.field(name) for name in (QUERY_ID, *columns)])
    for row in groups.to_pylist():
        with _open_parquet(queries, row["file"]) as parquet:
            available = [name for name in schema.names if name in parquet.schema_arrow.names]
            for rows in parquet.iter_batches(batch, row_groups=[row["group"]], columns=available):
                arrays = [
                    rows[f.name].cast(f.type) if f.name in available else pa.nulls(len(rows), f.type)
                    for f in schema
                ]
                yield pa.Table.from_arrays(arrays, schema=schema)


def _write(out: Folder, results: ray.data.Dataset) -> dict[str, int]:
    """Write hits and invalid queries into two files, batch by batch; returns their counts. Removes the
    manifest of an earlier run before it replaces its files."""
    hits_schema = HITS.remove(HITS.get_field_index("refused"))
    refused_schema = pa.schema([HITS.field(QUERY_ID), HITS.field("refused")])
    counts = {"answered": 0, "refused": 0, "hits": 0}
    out.remove(MANIFEST_FILE)
    with (
        out.open_for_writing(_HITS) as hits_file,
        out.open_for_writing(_REFUSED) as refused_file,
        pq.ParquetWriter(hits_file, hits_schema) as hits_writer,
        pq.ParquetWriter(refused_file, refused_schema) as refused_writer,
    ):
        for table in results.iter_batches(batch_format="pyarrow", batch_size=None):
            hits = table.filter(pc.field("rank").is_valid())
            refused = table.filter(pc.field("refused").is_valid())
            hits_writer.write_table(hits.select(hits_schema.names).cast(hits_schema))
            refused_writer.write_table(refused.select(refused_schema.names).cast(refused_schema))
            counts["hits"] += len(hits)
            counts["refused"] += len(refused)
            # A valid query has one row of rank 1, or one row without a hit.
            counts["answered"] += len(table) - len(refused) - len(hits.filter(pc.field("rank") > 1))
    return counts


def _check_texts(texts: list[str]) -> tuple[str, ...]:
    if not all(text.strip() for text in texts):
        raise InputError("--without: an empty text; name what hits should not show, such as red")
    return tuple(text.strip() for text in texts)


def _parse_where(text: str | None) -> tuple[Condition, ...]:
    try:
        return TypeAdapter(tuple[Condition, ...]).validate_python(json.loads(text)) if text else ()
    except (ValidationError, json.JSONDecodeError) as error:
        example = '[{"column": "price", "op": "lt", "value": 10}]'
        raise InputError(f"--where: not valid; give JSON such as {example}") from error
