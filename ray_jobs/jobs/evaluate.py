"""The evaluate command: embeds a split of SHARDS with a CHECKPOINT, and writes a REPORT."""

import argparse
import logging
from collections import Counter
from datetime import UTC, datetime
from typing import Any

import torch
from markupsafe import Markup

from ray_jobs.cluster import requirements
from ray_jobs.cluster.checks import enforce
from stbir.config import MODALITIES
from stbir.config.choices import Backend
from stbir.data.shards import Shards, open_shards
from stbir.embedding.match_probability import MIN_QUERIES, fit_match_curves, store_match_curves
from stbir.embedding.queries import SplitFeatures, embed
from stbir.errors import InputError
from stbir.evaluation import report
from stbir.evaluation.evaluate import Evaluation, evaluate_features
from stbir.evaluation.reliability import as_dict, reliability
from stbir.evaluation.robustness import evaluate_robustness
from stbir.model import checkpoint
from stbir.model.backend import use_backend
from stbir.model.graph_cache import DEFAULT_FOLDER
from stbir.model.retriever import Retriever
from stbir.storage.folder import Folder
from stbir.storage.lock import Lock, artifact_lock

log = logging.getLogger(__name__)


def evaluate_checkpoint(args: argparse.Namespace) -> dict[str, Any]:
    """Evaluate in this process, without Ray."""
    model, digest = checkpoint.resolve_pinned(args.checkpoint)
    shards = open_shards(args.shards)
    num_photos = shards.select_split(args.split).num_rows
    out = Folder(args.out)
    enforce(requirements.storage(out))
    with artifact_lock(out, "report") as lock:
        return _evaluate(shards, num_photos, model, digest, lock, args)


def _evaluate(
    shards: Shards, num_photos: int, model: str, digest: str, lock: Lock, args: argparse.Namespace
) -> dict[str, Any]:
    retriever, backends = _load(model, args.backend)
    log.info("evaluating %d photos of split %s, %s", num_photos, args.split, args.protocol)
    features = embed(retriever, shards.iter_rows(args.split))
    evaluation = evaluate_features(features, args.protocol)
    _print(evaluation, num_photos)
    facts = _facts(model, shards, args.split) | {"backends": backends}
    content = report.report(evaluation, digest, args.split, **facts)
    sections = [*_add_reliability(content, features)]
    if args.robustness:
        sections.append(_add_robustness(content, retriever, features, shards, args))
    page = report.html(content, evaluation, shards.iter_rows(args.split), sections)
    lock.check()
    report.write(args.out, content, page)
    if args.store_probabilities:
        _store_probabilities(args.checkpoint, features)
    return {"report": args.out, **{key: value for key, value in content.items() if key != "by_category"}}


def _load(model: str, backend: Backend) -> tuple[Retriever, dict[str, str]]:
    """The model, on a GPU if there is one, and the backend of each encoder."""
    retriever = checkpoint.load(model)
    if torch.cuda.is_available():
        retriever.cuda()
    return retriever, {
        modality: str(use_backend(retriever.encoder(modality), modality, backend, DEFAULT_FOLDER))
        for modality in MODALITIES
    }


def _print(evaluation: Evaluation, num_photos: int) -> None:
    for kind, count in evaluation.num_skipped.items():
        if count:
            log.info("%d of %d photos have no %s query", count, num_photos, kind)
    print(report.table(evaluation.results))
    if shares := evaluation.modality_shares:
        print("", report.shares_table(shares), sep="\n")


def _facts(model: str, shards: Shards, split: str) -> dict[str, Any]:
    recipe = checkpoint.read_recipe(model)
    return {
        "date": datetime.now(UTC).date().isoformat(),
        "recipe": recipe.name,
        "model": recipe.model.names,
        "shards": shards.manifest.digest,
        "text_sources": text_sources(shards, split),
    }


def _add_reliability(content: dict[str, Any], features: SplitFeatures) -> list[Markup]:
    """Add the reliability of the probability of a match to the report; its section, if it was measured."""
    by_kind = reliability(features)
    if not by_kind:
        return []
    content["reliability"] = as_dict(by_kind)
    return [report.reliability_section(by_kind)]


def _add_robustness(
    content: dict[str, Any],
    retriever: Retriever,
    features: SplitFeatures,
    shards: Shards,
    args: argparse.Namespace,
) -> Markup:
    """Evaluate corrupted queries, and add the results to the report; their section of the page."""
    log.info("evaluating corrupted queries, seed %d", args.seed)
    rows = shards.iter_rows(args.split)
    robustness = evaluate_robustness(retriever, features, rows, args.protocol, seed=args.seed)
    print("", report.robustness_table(robustness), sep="\n")
    content["robustness"] = robustness.as_dict()
    return report.robustness_section(robustness, shards.iter_rows(args.split))


def _store_probabilities(uri: str, features: SplitFeatures) -> None:
    curves = fit_match_curves(features)
    if not curves:
        few = f"no kind of query has {MIN_QUERIES} queries"
        raise InputError(f"--store-probabilities: {few}; give a split with more photos")
    with artifact_lock(Folder(uri), "checkpoint"):
        store_match_curves(uri, curves)
    log.info("stored the probability of a match by %s in %s", ", ".join(curves), uri)


def text_sources(shards: Shards, split: str) -> dict[str, int]:
    """Number of captions by source; a report must tell generated captions from published ones."""
    return dict(Counter(filter(None, shards.select_split(split)["text_source"].to_pylist())))
