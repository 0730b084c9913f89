"""The calibrate command: a CHECKPOINT with hubness correction, in this process."""

import argparse
from typing import Any

from stbir.data.photo_index import build_photo_index
from stbir.data.shards import open_shards
from stbir.embedding.calibration import calibrate_checkpoint
from stbir.model import checkpoint
from stbir.storage.folder import Folder
from stbir.storage.lock import artifact_lock


def calibrate(args: argparse.Namespace) -> dict[str, Any]:
    """Measure and write. Raises InputError for a missing checkpoint or split, and for too few photos."""
    shards = open_shards(args.shards)
    photos = build_photo_index(shards, args.split.split(","), [])
    with artifact_lock(Folder(args.out), "checkpoint"):
        manifest = calibrate_checkpoint(args.checkpoint, photos, [shards.manifest.digest], args.out)
    model = checkpoint.read_recipe(args.out).model
    facts = {"queries": model.hubness, "dim": model.width}
    return {"checkpoint": args.out, "digest": manifest.digest, "made_from": manifest.made_from, **facts}
