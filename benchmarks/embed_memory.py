"""Compares the peak memory of embedding N and 10 N photos, or measures updates of unchanged photos.

`python benchmarks/embed_memory.py` makes the photos. It samples the private memory (MiB) of each Ray process
and of the object store while `embed_gallery` runs.
The last line is JSON: `ratio` is 10 N over N by kind of process, `total` that of the sums.

With `--unchanged N`, N copies of a small photo get random vectors and their rows directly. The table is then
updated twice in this process: `read_s` without identities of files, so that each photo is read and hashed,
and `compared_s` with the identities that this update has stored. Memory is that of this process.
"""

import argparse
import os
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from PIL import Image

from benchmarks.embed import make_photos, run_embed_gallery
from benchmarks.endpoint.world import make_checkpoint
from benchmarks.memory_sampler import DRIVER, MemorySampler, compare_peaks
from ray_jobs.cli import run
from ray_jobs.cluster.connection import connect
from stbir.catalogue.folder import FolderCatalogue
from stbir.embedding.decode import DecodedPart
from stbir.embedding.gallery_update import EmbeddingSpace, to_table, update_table
from stbir.embedding.local_pipeline import embed_catalogue
from stbir.embedding.removal_guard import RemovalGuard
from stbir.gallery.fingerprint import content_hash
from stbir.gallery.store import open_store
from stbir.gallery.table import PUBLISHED, schema
from stbir.gallery.table_writer import open_writer, published_version
from stbir.images import encode_as
from stbir.model import checkpoint
from stbir.model.encoders import ImageEncoder
from stbir.storage.folder import Folder
from stbir.storage.lock import artifact_lock

_FILES_PER_FOLDER, _DIGEST = 1000, "000"
_MIN_AGE_S = 3  # a file that was just written is read again


def main(args: argparse.Namespace) -> dict[str, Any]:
    """Embed `--photos` and ten times as many, and compare the peaks; or update `--unchanged` photos."""
    if args.unchanged:
        return _update_unchanged(args)
    connect()
    return compare_peaks(args.photos, lambda count: _peaks(count, args))


def _peaks(photos: int, args: argparse.Namespace) -> dict[str, float]:
    """Peak MiB by kind of process."""
    with tempfile.TemporaryDirectory() as folder:
        make_photos(Path(folder) / "photos", photos)
        model = make_checkpoint(f"{folder}/checkpoint", args.recipe)
        with MemorySampler() as sampler:
            run_embed_gallery(model, folder)
        return sampler.peaks


def _update_unchanged(args: argparse.Namespace) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as scratch:
        model, gallery = make_checkpoint(f"{scratch}/checkpoint", args.recipe), Folder(f"{scratch}/gallery")
        photo = encode_as(Image.new("RGB", (16, 16)), "JPEG")
        catalogue = _write_copies(photo, Path(scratch) / "photos", args.unchanged)
        encoder = checkpoint.load(model, part="photo")
        _publish_rows(catalogue, gallery, encoder.dim, content_hash(photo))
        time.sleep(_MIN_AGE_S)
        start = time.perf_counter()
        _update(catalogue, gallery, encoder)
        read = time.perf_counter()
        with MemorySampler() as sampler:
            _update(catalogue, gallery, encoder)
        seconds = {"read_s": round(read - start, 1), "compared_s": round(time.perf_counter() - read, 1)}
    return {"unchanged": args.unchanged, **seconds, "mib": sampler.peaks[DRIVER]}


def _write_copies(photo: bytes, folder: Path, count: int) -> FolderCatalogue:
    """Links to one file a folder, as file systems limit their number."""
    for start in range(0, count, _FILES_PER_FOLDER):
        subfolder = folder / f"{start // _FILES_PER_FOLDER:05}"
        subfolder.mkdir(parents=True)
        first = f"{subfolder}/{start:09}.jpg"
        Path(first).write_bytes(photo)
        for number in range(start + 1, min(start + _FILES_PER_FOLDER, count)):
            os.link(first, f"{subfolder}/{number:09}.jpg")
    return FolderCatalogue(str(folder))


def _publish_rows(catalogue: FolderCatalogue, gallery: Folder, dim: int, content: str) -> None:
    """A published gallery of the photos, without identities."""
    columns, rng = schema(dim), np.random.default_rng(0)
    writer = open_writer(gallery, columns, _DIGEST)
    tables = []
    for part in catalogue.parts():
        num, categories = len(part.ids), [ref.category for ref in part.location]
        decoded = DecodedPart(part.ids, categories, [b""] * num, [content] * num, [()] * num)
        tables.append(to_table(decoded, rng.random((num, dim), np.float32), columns))
    writer.append(pa.concat_tables(tables))
    writer.commit()
    open_store(gallery).set_tag(PUBLISHED, writer.dataset.version)


def _update(catalogue: FolderCatalogue, gallery: Folder, encoder: ImageEncoder) -> None:
    with artifact_lock(gallery, "gallery") as lock:
        guard = RemovalGuard(published_version(gallery), 0)
        guard.check_listing(catalogue)
        table = update_table(
            catalogue,
            gallery,
            lock,
            EmbeddingSpace(_DIGEST, encoder.dim),
            guard,
            lambda parts: embed_catalogue(catalogue, parts, encoder),
            0,
            lambda: guard.num_listed,
        )
    assert table.counts["already_there"] == table.num_rows == guard.num_listed


def parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser("benchmarks/embed_memory.py", description=(__doc__ or "").split(".")[0])
    parser.add_argument("--photos", type=int, default=5000)
    parser.add_argument("--unchanged", type=int, metavar="N", help="update N unchanged photos instead")
    parser.add_argument("--recipe", default="smoke")
    return parser


if __name__ == "__main__":
    run(main, parser())
