"""The init_checkpoint command: a CHECKPOINT of a CLIP model without training, in this process."""

import argparse
from typing import Any

from stbir.model import checkpoint
from stbir.model.builder import build_retriever
from stbir.model.clip import clip_recipe
from stbir.storage.folder import Folder
from stbir.storage.lock import artifact_lock


def init_checkpoint(args: argparse.Namespace) -> dict[str, Any]:
    """Build the model from its weights and write it. Raises InputError for unusable weights."""
    recipe = clip_recipe(args.model, args.pretrained)
    with artifact_lock(Folder(args.out), "checkpoint"):
        manifest = checkpoint.save_untrained(args.out, build_retriever(recipe.model), recipe)
    model = {"model": args.model, "pretrained": args.pretrained, "dim": recipe.model.dim}
    size = recipe.model.photo.preprocess.size
    return {"checkpoint": args.out, "digest": manifest.digest, **model, "image_size": size}
