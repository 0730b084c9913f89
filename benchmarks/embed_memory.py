"""Compares the peak memory of embedding N and 10 N photos, or measures updates of unchanged photos.

`python benchmarks/embed_memory.py` makes the photos. It samples the private memory (MiB) of each Ray process
and of the object store while `embed_gallery` runs.
The last line is JSON: `ratio` is 10 N over N by kind of process, `total` that of the sums.

With `--resume N`, a job over N photos resumes that was killed after 99 %. Vectors are random and there are no
files: the catalogue is computed. `resume_s` and `mib`, the peak of this process, are those of the job;
`base_mib` is its memory before. Compare several N, each in its own process.

With `--unchanged N`, N copies of a small photo get random vectors and their rows directly. The table is then
updated twice in this process: `read_s` without identities of files, so that each photo is read and hashed,
and `compared_s` with the identities that this update has stored. Memory is that of this process.
"""

import argparse
import os
import tempfile
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pyarrow as pa
from PIL import Image

from benchmarks.embed import make_photos, run_embed_gallery
from benchmarks.endpoint.world import make_checkpoint
from benchmarks.memory_sampler import DRIVER, MIB, MemorySampler, compare_peaks
from ray_jobs.cli import run
from ray_jobs.cluster.connection import connect
from stbir.catalogue.folder import FolderCatalogue
from stbir.catalogue.photo import Part, Photo, PhotoRef, split_into_parts
from stbir.data.validation import Fault
from stbir.embedding.decode import DecodedPart, UnreadPart
from stbir.embedding.gallery_update import EmbeddingSpace, plan_update, to_table, update_table
from stbir.embedding.local_pipeline import embed_catalogue
from stbir.gallery.arrays import Features
from stbir.gallery.fingerprint import content_hash, fingerprint, short_hash
from stbir.gallery.identity_store import IdentityStore
from stbir.gallery.store import open_store
from stbir.gallery.table import PUBLISHED, schema
from stbir.gallery.table_writer import open_writer
from stbir.images import encode_as
from stbir.model import checkpoint
from stbir.model.encoders import ImageEncoder
from stbir.storage.folder import Folder
from stbir.storage.lock import artifact_lock

_FILES_PER_FOLDER, _DIGEST = 1000, "000"
_DIM, _CONTENT, _FRAGMENT_PARTS = 8, "0" * 64, 64
_MIN_AGE_S = 3  # a file that was just written is read again


def main(args: argparse.Namespace) -> dict[str, Any]:
    """Embed `--photos` and ten times as many, and compare the peaks; or what the options say."""
    if args.resume:
        return _resume(args.resume)
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


@dataclass(frozen=True)
class _ComputedCatalogue:
    """The first `count` photos of a folder that does not exist."""

    num_photos: int

    @property
    def fields(self) -> pa.Schema:
        return pa.schema([])

    def count(self) -> int:
        return self.num_photos

    def parts(self) -> Iterator[Part]:
        return split_into_parts(map(_photo_ref, range(self.num_photos)))

    def identities(self, part: Part) -> list[str | None]:
        return [ref.identify(ref.version) for ref in part.location]

    def read(self, part: Part) -> Iterator[Photo | Fault]:
        raise NotImplementedError("the photos have no bytes; `_embed_randomly` makes their vectors")


def _photo_ref(number: int) -> PhotoRef:
    folder = f"{number // _FILES_PER_FOLDER:05}"
    name = f"{folder}/{number:09}.jpg"
    return PhotoRef(name, folder, f"/data/photos/{name}", size=100_000, version="1764547200000000000")


def _embed_randomly(
    parts: Iterable[DecodedPart | UnreadPart],
) -> Iterator[tuple[DecodedPart, Features]]:
    """The parts, as if their photos had the content _CONTENT, with random vectors (B, _DIM)."""
    rng = np.random.default_rng(0)
    for part in parts:
        decoded = part if isinstance(part, DecodedPart) else _decode(part.part, part.identities)
        yield decoded, rng.random((len(decoded.photo_ids), _DIM), np.float32)


def _decode(part: Part, identities: list[bytes]) -> DecodedPart:
    refs, num = part.location, len(part.ids)
    prints = [fingerprint(ref.photo_id, ref.category, _CONTENT, ()) for ref in refs]
    pairs = list(zip(prints, identities, strict=True))
    categories, contents = [ref.category for ref in refs], [_CONTENT] * num
    return DecodedPart(part.ids, categories, [b""] * num, contents, [()] * num, identities=pairs)


def _resume(num_photos: int) -> dict[str, Any]:
    catalogue = _ComputedCatalogue(num_photos)
    with tempfile.TemporaryDirectory() as scratch:
        gallery, space = Folder(scratch), EmbeddingSpace(_DIGEST, _DIM)
        _write_rows(_ComputedCatalogue(num_photos - num_photos // 100), gallery)
        counts: dict[str, int] = {}

        def resume() -> None:
            with artifact_lock(gallery, "gallery") as lock:
                plan = plan_update(catalogue, gallery, space, 0)
                counts.update(update_table(plan, gallery, lock, _embed_randomly, 0).counts)

        base_mib = psutil.Process().memory_full_info().uss / MIB
        start, cpu_s = time.perf_counter(), time.process_time()
        with MemorySampler() as sampler:
            resume()
        seconds, cpu_s = time.perf_counter() - start, time.process_time() - cpu_s
    assert (counts["ok"], counts["embedded"]) == (num_photos, num_photos // 100)
    times = {"resume_s": round(seconds, 1), "cpu_s": round(cpu_s, 1)}
    return {"resume": num_photos, **times, "base_mib": round(base_mib, 1), "mib": sampler.peaks[DRIVER]}


def _write_rows(catalogue: _ComputedCatalogue, gallery: Folder) -> None:
    """The rows and identities of a job that was killed. The writer is that of a job, without a lock."""
    columns, store = schema(_DIM), IdentityStore(gallery)
    writer = open_writer(gallery, columns, _DIGEST)
    parts = catalogue.parts()
    while batch := list(islice(parts, _FRAGMENT_PARTS)):
        known = [UnreadPart(part, [], _identity_hashes(catalogue, part), []) for part in batch]
        embedded = list(_embed_randomly(known))
        writer.append(pa.concat_tables(to_table(decoded, vectors, columns) for decoded, vectors in embedded))
        store.append([pair for decoded, _ in embedded for pair in decoded.identities])
    writer.commit()


def _identity_hashes(catalogue: _ComputedCatalogue, part: Part) -> list[bytes]:
    return [short_hash(identity or "") for identity in catalogue.identities(part)]


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
        plan = plan_update(catalogue, gallery, EmbeddingSpace(_DIGEST, encoder.dim), 0)
        embed = partial(embed_catalogue, catalogue, encoder=encoder)
        table = update_table(plan, gallery, lock, embed, 0)
    assert table.counts["already_there"] == table.num_rows == plan.listing.num_photos


def parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser("benchmarks/embed_memory.py", description=(__doc__ or "").split(".")[0])
    parser.add_argument("--photos", type=int, default=5000)
    parser.add_argument("--resume", type=int, metavar="N", help="resume a job over N computed photos instead")
    parser.add_argument("--unchanged", type=int, metavar="N", help="update N unchanged photos instead")
    parser.add_argument("--recipe", default="smoke")
    return parser


if __name__ == "__main__":
    run(main, parser())
