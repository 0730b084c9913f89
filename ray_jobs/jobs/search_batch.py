"""Many queries → HITS: Parquet of sketches, captions or vectors in, Parquet of the photos found out."""

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

from ray_jobs.cli import Failed
from ray_jobs.cluster import placement
from ray_jobs.cluster.connection import connect
from stbir.embedding.batch_search import ASKED_BY, HITS, QUERY_ID, Encoders, Wish, ask
from stbir.errors import InputError
from stbir.gallery.filters import Condition
from stbir.gallery.gallery import open_gallery, open_version
from stbir.gallery.local_cache import Cache
from stbir.model import checkpoint
from stbir.storage.folder import Folder
from stbir.storage.manifest import NAME, Manifest, content_digest, refuse_other, write_manifest

log = logging.getLogger(__name__)
_HITS, _REFUSED = "hits.parquet", "refused.parquet"
_CPUS = 0.5  # as the actors of embed_gallery: reading keeps its own


class Searcher:
    """An actor's state: the towers that the queries need, and the gallery."""

    def __init__(
        self, model: str, digest: str, gallery: tuple[str, int], wish: Wish, by: list[str], cache: str | None
    ) -> None:
        uri, version = gallery
        self._gallery = open_gallery(uri, digest, version, Cache(Path(cache)) if cache else None)
        self._wish = wish
        self._encoders = Encoders(
            checkpoint.load(model, part="sketch") if "sketch" in by else None,
            checkpoint.load(model, part="text") if "text" in by else None,
            checkpoint.load(model, part="gate") if {"sketch", "text"} <= set(by) else None,
        )

    def __call__(self, queries: pa.Table) -> pa.Table:
        """Queries → rows of HITS."""
        return ask(self._gallery, self._encoders, queries, self._wish)


def search_batch(args: argparse.Namespace) -> dict[str, Any]:
    """Read, ask, write; the manifest comes last and has counted every query."""
    out = Folder(args.out)
    refuse_other(out, "hits")
    queries, names = _files(args.queries)
    expected, by = _inspected(queries, names)
    model, digest = checkpoint.pinned(args.checkpoint)
    gallery = Folder(args.gallery).uri
    version = open_version(gallery, digest).version
    wish = Wish(args.k, args.sketch_weight, args.category, _where(args.where))
    connect()
    # One for the tasks that read, beside what an actor holds: without it they would wait for ever.
    placement.demand_room("searching", 1 + math.ceil(_CPUS), args.wait)
    files = [queries.at(name) if queries.local else f"{queries.uri}/{name}" for name in names]
    asked = ray.data.read_parquet(files).select_columns([QUERY_ID, *by])
    found = asked.map_batches(
        Searcher,
        batch_size=args.batch,
        batch_format="pyarrow",
        fn_constructor_args=(model, digest, (gallery, version), wish, by, args.cache),
        compute=ray.data.ActorPoolStrategy(min_size=1, max_size=args.workers),
        num_cpus=_CPUS,
    )
    counts = {"in": expected, **_write(out, found)}
    check(counts, args.max_bad, out)
    details = {"gallery_version": version, "k": args.k, "asked_by": by}
    digest_out = content_digest(out, [_HITS, _REFUSED])
    write_manifest(out, Manifest("hits", digest_out, counts, digest, details))
    return {"out": args.out, "checkpoint": digest, **counts, **details}


def check(counts: dict[str, int], max_bad: float, out: Folder) -> None:
    """Raises Failed where queries were lost, or more than that share refused."""
    if counts["in"] != counts["answered"] + counts["refused"]:
        raise Failed(f"{counts['in']} queries went in, and not as many came out; not published", counts)
    if counts["refused"] > max_bad * counts["in"]:
        bad = f"{counts['refused']} of {counts['in']} queries cannot be asked"
        raise Failed(f"{bad}, see {out.uri}/{_REFUSED}; not published", counts)


def _files(uri: str) -> tuple[Folder, list[str]]:
    """One Parquet file in its folder, or every one of a folder."""
    folder = Folder(uri)
    parent, _, name = folder.uri.rpartition("/")
    names = folder.names("*.parquet")
    if names or not name.endswith(".parquet") or not folder.exists():
        return folder, names
    return Folder(parent or "/"), [name]


def _inspected(queries: Folder, names: list[str]) -> tuple[int, list[str]]:
    """How many queries there are, and which columns they ask by."""
    if not names:
        raise InputError(
            f"--queries: {queries.uri}: no *.parquet there; write one with {QUERY_ID} and a query"
        )
    rows, columns = 0, set[str]()
    for name in names:
        with queries.open(name) as file:
            parquet = pq.ParquetFile(file)
            rows, columns = rows + parquet.metadata.num_rows, columns | set(parquet.schema_arrow.names)
    by = [name for name in ASKED_BY if name in columns]
    if QUERY_ID not in columns or not by:
        raise InputError(
            f"--queries: {queries.uri}: needs the column {QUERY_ID} and one of {', '.join(ASKED_BY)}"
        )
    return rows, by


def _write(out: Folder, found: ray.data.Dataset) -> dict[str, int]:
    """Hits and refusals as they come, in two files; how many queries each is of. The manifest of an earlier
    run goes first: it would speak of files that are being written over."""
    hits, refused = (
        HITS.remove(HITS.get_field_index("refused")),
        pa.schema([HITS.field(0), HITS.field("refused")]),
    )
    counts = {"answered": 0, "refused": 0, "hits": 0}
    out.remove(NAME)
    with (
        out.writing(_HITS) as hits_file,
        out.writing(_REFUSED) as refused_file,
        pq.ParquetWriter(hits_file, hits) as hits_out,
        pq.ParquetWriter(refused_file, refused) as refused_out,
    ):
        for table in found.iter_batches(batch_format="pyarrow", batch_size=None):
            good, bad = (
                table.filter(pc.field("rank").is_valid()),
                table.filter(pc.field("refused").is_valid()),
            )
            hits_out.write_table(good.select(hits.names).cast(hits))
            refused_out.write_table(bad.select(refused.names).cast(refused))
            counts["hits"] += len(good)
            counts["refused"] += len(bad)
            # A query is one row of rank 1, or one row without a hit.
            counts["answered"] += len(table) - len(bad) - len(good.filter(pc.field("rank") > 1))
    return counts


def _where(text: str | None) -> tuple[Condition, ...]:
    try:
        return TypeAdapter(tuple[Condition, ...]).validate_python(json.loads(text)) if text else ()
    except (ValidationError, json.JSONDecodeError) as error:
        wanted = '[{"column": "price", "op": "lt", "value": 10}]'
        raise InputError(f"--where: cannot be read; give it as {wanted}") from error
