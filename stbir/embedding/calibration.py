"""Calibration of a trained model: hubness correction, measured on the photos and queries of the training."""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import torch
import torch.nn.functional as F

from stbir.config import MODALITIES, ModelConfig
from stbir.data.batch import read_row_groups
from stbir.data.photo_index import IntArray, PhotoIndex
from stbir.data.sampling import calibration_photos
from stbir.data.schema import Row
from stbir.embedding.queries import embed
from stbir.errors import InputError
from stbir.model import checkpoint
from stbir.model.retriever import Retriever
from stbir.storage.folder import Folder
from stbir.storage.manifest import MANIFEST_FILE, Manifest, read_manifest

NUM_QUERIES = 1024  # stored of each kind


def calibrate(
    retriever: Retriever, model: ModelConfig, photos: PhotoIndex, num_queries: int = NUM_QUERIES
) -> ModelConfig:
    """Measure hubness and correct the scores of `retriever` from then on; a former correction is replaced.

    Uses at most `num_queries` photos and stores as many queries of each kind. Returns `model`, the
    configuration of the retriever, with the correction. Raises InputError as `calibration_photos` does.
    """
    chosen = calibration_photos(photos, num_queries)
    split = embed(retriever, _read_rows(photos, chosen))
    vectors = {"photo": split.photo_ND, "sketch": split.sketch_SD, "text": split.text_TD}
    device = next(retriever.parameters()).device
    num_stored = min(num_queries, max(len(split.sketch_SD), len(split.text_TD)))
    calibrated = model.with_hubness(num_stored)
    retriever.measure_hubness(
        # Without the dimensions of a former correction.
        {m: F.normalize(torch.from_numpy(vectors[m]).to(device)[:, : model.dim], dim=1) for m in MODALITIES},
        {
            "sketch": torch.from_numpy(split.sketch_photo_S).to(device),
            "text": torch.from_numpy(split.text_photo_T).to(device),
        },
        num_stored,
        calibrated.hubness_dims,
    )
    return calibrated


def calibrate_checkpoint(source: str, photos: PhotoIndex, data: list[str], out: str) -> Manifest:
    """Calibrate the checkpoint that `source` points to, and publish the result at `out`.

    `data`: digests of the shards. `out` may be `source`, if it is not calibrated yet; the former checkpoint
    stays beside the new one. Raises InputError as `calibrate` does, and if `out` holds another checkpoint.
    """
    pinned, digest = checkpoint.resolve_pinned(source)
    retriever, recipe = checkpoint.load(pinned), checkpoint.read_recipe(pinned)
    manifest = read_manifest(Folder(pinned), "checkpoint")
    former = recipe.model
    recipe = replace(recipe, model=calibrate(retriever, former, photos))
    root = Folder(out)
    if root.exists(MANIFEST_FILE):
        existing = read_manifest(root, "checkpoint")
        if existing.digest == checkpoint.compute_digest(retriever, recipe):
            return existing
        if existing.digest != digest or former.hubness:
            raise InputError(f"{out}: contains another checkpoint; choose another folder")
    steps = manifest.counts.get("steps", 0)
    return checkpoint.save(
        out,
        f"step-{steps:08d}-calibrated",
        retriever,
        recipe,
        made_from=digest,
        counts=manifest.counts,
        details={**manifest.details, "calibrated": {"photos": photos.digest, "data": data}},
    )


def _read_rows(photos: PhotoIndex, chosen: IntArray) -> Iterator[Row]:
    """The rows of the chosen photos; one row group at a time is in memory."""
    for group in np.unique(photos.row_group[chosen]):
        [table] = read_row_groups(photos, [int(group)], ("photo", "sketch")).values()
        for photo in chosen[photos.row_group[chosen] == group]:
            images = table.slice(int(photos.row[photo]), 1).to_pylist()[0]
            yield {
                "photo_id": photos.ids[photo],
                "category": "",
                "split": "",
                "photo": images["photo"],
                "sketches": images["sketches"],
                "text": photos.texts[photo],
                "text_source": None,
                "sketch_count": len(images["sketches"]),
            }
