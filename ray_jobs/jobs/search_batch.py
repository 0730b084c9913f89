"""Search a GALLERY with many queries: Parquet files of sketches, texts or vectors in, HITS out."""

import argparse
import json
import logging
import math
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import ray.data
from pydantic import TypeAdapter, ValidationError

from ray_jobs.cli import JobFailedError
from ray_jobs.cluster import placement
from ray_jobs.cluster.connection import connect
from stbir.embedding.batch_search import (
    HITS,
    QUERY_COLUMNS,
    QUERY_ID,
    QueryEncoders,
    SearchParams,
    search_table,
)
from stbir.errors import InputError
from stbir.gallery.filters import Condition
from stbir.gallery.gallery import open_gallery, open_version
from stbir.gallery.local_cache import CacheConfig
from stbir.model import checkpoint
from stbir.storage.folder import Folder
from stbir.storage.lock import artifact_lock
from stbir.storage.manifest import MANIFEST_FILE, Manifest, content_digest, refuse_other_kind, write_manifest

log = logging.getLogger(__name__)
_HITS, _REFUSED = "hits.parquet", "refused.parquet"
_GalleryArgs = tuple[str, str, int, CacheConfig | None]  # of `open_gallery`


class SearchActor:
    """Holds the gallery and the encoders that the queries need."""

    def __init__(self, model: str, columns: list[str], params: SearchParams, gallery: _GalleryArgs) -> None:
        self._gallery, self._params = open_gallery(*gallery), params
        self._encoders = QueryEncoders(
            checkpoint.load(model, part="sketch") if "sketch" in columns else None,
            checkpoint.load(model, part="text") if "text" in columns else None,
            checkpoint.load(model, part="gate") if {"sketch", "text"} <= set(columns) else None,
        )

    def __call__(self, queries: pa.Table) -> pa.Table:
        """Queries → rows of HITS."""
        return search_table(self._gallery, self._encoders, queries, self._params)


def search_batch(args: argparse.Namespace) -> dict[str, Any]:
    """Read the queries, search, and write hits; the manifest comes last and counts every query."""
    out = Folder(args.out)
    refuse_other_kind(out, "hits")
    queries, names = _query_files(args.queries)
    num_queries, columns = _inspect(queries, names)
    model, digest = checkpoint.resolve_pinned(args.checkpoint)
    gallery = Folder(args.gallery).uri
    version = open_version(gallery, digest).version
    params = SearchParams(args.k, args.sketch_weight, args.category, _parse_where(args.where))
    cache = CacheConfig(Path(args.cache)) if args.cache else None
    with artifact_lock(out, "hits") as lock:
        connect()
        # One CPU for the read tasks, which would never start without it.
        placement.require_resources("searching", 1 + math.ceil(placement.ENCODER_CPUS), args.resource_timeout)
        files = [queries.quoted_uri_of(name) for name in names]
        hits = (
            ray.data.read_parquet(files)
            .select_columns([QUERY_ID, *columns])
            .map_batches(
                SearchActor,
                batch_size=args.batch,
                batch_format="pyarrow",
                fn_constructor_args=(model, columns, params, (gallery, digest, version, cache)),
                compute=ray.data.ActorPoolStrategy(min_size=1, max_size=args.workers),
                num_cpus=placement.ENCODER_CPUS,
            )
        )
        counts = {"in": num_queries, **_write(out, hits)}
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


def _inspect(queries: Folder, names: list[str]) -> tuple[int, list[str]]:
    """The number of queries, and the query columns that the files have."""
    if not names:
        raise InputError(
            f"--queries: {queries.uri}: no *.parquet here; write one with {QUERY_ID} and a query"
        )
    num_rows, available = 0, set[str]()
    for name in names:
        with queries.open(name) as file:
            parquet = pq.ParquetFile(file)
            num_rows += parquet.metadata.num_rows
            available |= set(parquet.schema_arrow.names)
    columns = [name for name in QUERY_COLUMNS if name in available]
    if QUERY_ID not in available or not columns:
        raise InputError(
            f"--queries: {queries.uri}: needs the column {QUERY_ID} and one of {', '.join(QUERY_COLUMNS)}"
        )
    return num_rows, columns


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


def _parse_where(text: str | None) -> tuple[Condition, ...]:
    try:
        return TypeAdapter(tuple[Condition, ...]).validate_python(json.loads(text)) if text else ()
    except (ValidationError, json.JSONDecodeError) as error:
        example = '[{"column": "price", "op": "lt", "value": 10}]'
        raise InputError(f"--where: not valid; give JSON such as {example}") from error
