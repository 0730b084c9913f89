"""SHARDS + CHECKPOINT → GALLERY: decode in CPU tasks, encode in actors that hold the photo tower, publish."""

import argparse
import logging
import os
import sys
from typing import Any

import lance_ray
import pyarrow as pa
import ray
import ray.data
import torch

from ray_jobs.command import Failed, connect, run
from ray_jobs.meters import EmbedMeters
from ray_jobs.photo_feed import Batch, Quarantine, decoded_photos
from stbir.data.inspection import Fault
from stbir.data.manifest import refuse_other
from stbir.data.shards import Shards, open_shards
from stbir.data.storage import Folder
from stbir.data.writer import QUARANTINE, write_quarantine
from stbir.errors import InputError
from stbir.model import checkpoint
from stbir.retrieval.embed import BATCH, encode
from stbir.retrieval.gallery import open_table, schema, table_uri
from stbir.retrieval.publish import (
    INDEX_ABOVE,
    MIN_RECALL,
    RECALL_AT,
    Candidate,
    plan_index,
    prepare,
    publish,
)

log = logging.getLogger(__name__)
# About 10 kB a photo with its thumbnail: what one writing task holds at a time.
_ROWS_PER_FILE = 16_384
# Less than a whole one: on a small machine the tasks that decode keep theirs. That it differs from theirs
# also keeps Ray from fusing them into the actors, where decoding would wait for encoding.
_TOWER_CPUS = 0.5
_SHOWN = 10
_REASON = "photo does not decode"


class PhotoTower:
    """An actor's state: the photo tower alone, on a GPU where there is one."""

    def __init__(self, checkpoint_uri: str, workers: int) -> None:
        self._encoder = checkpoint.load(checkpoint_uri, part="photo")
        if torch.cuda.is_available():
            self._encoder.cuda()
        else:  # Ray gives an actor of less than one CPU a single thread
            torch.set_num_threads(max(1, (os.cpu_count() or 1) // workers))
        self._schema = schema(self._encoder.dim)

    def __call__(self, batch: Batch) -> pa.Table:
        """Decoded photos → rows of the gallery."""
        if not len(batch["photo_id"]):
            return self._schema.empty_table()
        # A copy: what lies in the object store is read-only, which torch warns of.
        vectors_BD = encode(self._encoder, torch.tensor(batch["pixels"]))
        embedding = pa.FixedSizeListArray.from_arrays(pa.array(vectors_BD.ravel()), self._encoder.dim)
        columns = [pa.array(batch[name]) for name in ("photo_id", "category")]
        return pa.Table.from_arrays(
            [*columns, embedding, pa.array(batch["thumbnail"], pa.binary())], schema=self._schema
        )


def embed(photos: ray.data.Dataset, args: argparse.Namespace) -> ray.data.Dataset:
    """Decoded photos → rows of the gallery, in actors."""
    gpus = int(ray.cluster_resources().get("GPU", 0))
    workers = args.workers or max(1, gpus)
    return photos.map_batches(
        PhotoTower,
        batch_size=args.batch,
        batch_format="numpy",
        fn_constructor_args=(args.checkpoint, workers),
        compute=ray.data.ActorPoolStrategy(min_size=1, max_size=workers),
        num_cpus=_TOWER_CPUS,
        num_gpus=1 if gpus else 0,
    )


def write_version(args: argparse.Namespace, shards: Shards, folder: Folder) -> dict[str, str]:
    """Embed into a new, unpublished version of the table; returns what is in quarantine, id → reason."""
    quarantine = ray.remote(Quarantine).options(num_cpus=0).remote()
    context = ray.data.DataContext.get_current()
    context.execution_options.preserve_order = True  # the same photos make the same table
    context.enable_progress_bars = sys.stderr.isatty()
    model = checkpoint.read_recipe(args.checkpoint).model
    size = model.photo.preprocess.size
    lance_ray.write_lance(
        embed(decoded_photos(shards, args.split, size, args.batch, quarantine), args),
        table_uri(folder),
        schema=schema(model.dim),
        mode="overwrite",
        min_rows_per_file=_ROWS_PER_FILE,
        max_rows_per_file=_ROWS_PER_FILE,
    )
    reasons: dict[str, str] = ray.get(quarantine.reasons.remote())
    return reasons


def embed_gallery(args: argparse.Namespace) -> dict[str, Any]:
    """Embed, index, measure, publish. What was published before stays so until the very last step."""
    _check_options(args)
    args.checkpoint, digest = checkpoint.pinned(args.checkpoint)
    checkpoint.verify(args.checkpoint, digest)
    shards = open_shards(args.shards)
    expected = shards.split(args.split).num_rows
    folder = Folder(args.gallery)
    _check_writable(folder)
    connect()
    log.info("embedding %d photos of %s", expected, args.shards)
    meters = EmbedMeters(args.gallery)
    reasons = write_version(args, shards, folder)
    counts = {"in": expected, "ok": expected - len(reasons), "quarantined": len(reasons)}
    meters.show({"embedded": counts["ok"], "quarantined": counts["quarantined"]})
    meters.write(folder)
    _check_quarantine(folder, reasons, counts, args.max_bad)
    plan = plan_index(counts["ok"], args.index_above)
    candidate = prepare(folder, open_table(folder).version, digest, plan)
    _check_candidate(candidate, counts)
    manifest = publish(folder, candidate, counts)
    log.info("published version %d of %s", candidate.version, args.gallery)
    return {"gallery": args.gallery, "checkpoint": digest, **counts, **manifest.details}


def _check_options(args: argparse.Namespace) -> None:
    if not 0 <= args.max_bad <= 1:
        raise InputError(f"--max-bad: {args.max_bad} is not a share between 0 and 1")
    for option, value in (
        ("--batch", args.batch),
        ("--workers", args.workers),
        ("--index-above", args.index_above),
    ):
        if value is not None and value < 1:
            raise InputError(f"{option}: {value} is less than 1")


def _check_writable(folder: Folder) -> None:
    """Before the work, not after it: a bucket that is not there, or holds something else, is bad input."""
    refuse_other(folder, "gallery")
    folder.write(".probe", b"")
    folder.remove(".probe")


def _check_quarantine(
    folder: Folder, reasons: dict[str, str], counts: dict[str, int], max_bad: float
) -> None:
    write_quarantine(folder, [Fault(name, _REASON, detail=why) for name, why in reasons.items()])
    for photo_id, reason in list(reasons.items())[:_SHOWN]:
        log.warning("quarantined %s: %s", photo_id, reason)
    log.info("in %(in)d = ok %(ok)d + quarantined %(quarantined)d", counts)
    if len(reasons) > max_bad * counts["in"] or not counts["ok"]:
        bad = f"{len(reasons)} of {counts['in']} photos do not decode"
        raise Failed(f"{bad}, see {folder.uri}/{QUARANTINE}; not published", counts)


def _check_candidate(candidate: Candidate, counts: dict[str, int]) -> None:
    recall = f"recall@{RECALL_AT} {candidate.recall:.4f}"
    log.info("%s with %s", recall, candidate.plan or "exact search")
    if candidate.rows != counts["ok"]:
        raise Failed(f"{counts['ok']} photos went in, {candidate.rows} came out; not published", counts)
    if candidate.recall < MIN_RECALL:
        raise Failed(f"{recall} is below {MIN_RECALL}; not published", {**counts, "recall": candidate.recall})


def parser() -> argparse.ArgumentParser:
    """What the command takes."""
    parser = argparse.ArgumentParser("embed_gallery", description=__doc__)
    parser.add_argument("--checkpoint", required=True, metavar="URI", help="made by train.py")
    parser.add_argument("--shards", required=True, metavar="URI", help="made by prepare_shards.py")
    parser.add_argument("--split", help="only the photos of this split (default: all)")
    parser.add_argument("--gallery", required=True, metavar="URI", help="where to; again = a new version")
    parser.add_argument(
        "--workers", type=int, help="actors with the photo tower (default: one a GPU, else 1)"
    )
    parser.add_argument("--batch", type=int, default=BATCH, help="photos encoded at once (%(default)s)")
    parser.add_argument(
        "--index-above",
        type=int,
        default=INDEX_ABOVE,
        metavar="PHOTOS",
        help="search exactly up to so many photos, through an index above (%(default)s)",
    )
    parser.add_argument(
        "--max-bad",
        type=float,
        default=0.01,
        metavar="SHARE",
        help="publish only if at most this share of photos does not decode (%(default)s)",
    )
    return parser


if __name__ == "__main__":
    run(embed_gallery, parser())
