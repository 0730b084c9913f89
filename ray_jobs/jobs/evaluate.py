"""CHECKPOINT + a split of SHARDS → REPORT: sketch, text and both as queries, side by side."""

import argparse
import logging
from collections import Counter
from typing import Any

import torch

from ray_jobs.cluster import requirements
from ray_jobs.cluster.checks import demand
from stbir.data.shards import Shards, open_shards
from stbir.embedding.queries import embed
from stbir.evaluation import report
from stbir.evaluation.evaluate import evaluate_embedded
from stbir.evaluation.robustness import robustness
from stbir.model import checkpoint
from stbir.storage.folder import Folder
from stbir.storage.manifest import refuse_other

log = logging.getLogger(__name__)


def evaluate_checkpoint(args: argparse.Namespace) -> dict[str, Any]:
    """Embed the split in this process, rank, write the report."""
    model, digest = checkpoint.pinned(args.checkpoint)
    shards = open_shards(args.shards)
    photos = shards.split(args.split).num_rows
    refuse_other(Folder(args.out), "report")
    demand(requirements.place(Folder(args.out)))
    retriever = checkpoint.load(model)
    if torch.cuda.is_available():
        retriever.cuda()
    log.info("evaluating on %d photos of split %s, %s", photos, args.split, args.protocol)
    embedded = embed(retriever, shards.rows(args.split))
    evaluation = evaluate_embedded(embedded, args.protocol)
    for kind, count in evaluation.not_asked.items():
        if count:
            log.info("%d of %d photos could not ask %s", count, photos, kind)
    print(report.table(evaluation.results))
    facts = {"shards": shards.manifest.digest, "text_sources": text_sources(shards, args.split)}
    found = report.report(evaluation, digest, args.split, **facts)
    sections = []
    if args.robustness:
        log.info("asking again with distorted queries, seed %d", args.seed)
        poor = robustness(retriever, embedded, shards.rows(args.split), args.protocol, seed=args.seed)
        print("", report.robustness_table(poor), sep="\n")
        found["robustness"] = poor.as_dict()
        sections.append(report.robustness_section(poor, shards.rows(args.split)))
    report.write(args.out, found, report.html(found, evaluation, shards.rows(args.split), sections))
    return {"report": args.out, **{key: value for key, value in found.items() if key != "by_category"}}


def text_sources(shards: Shards, split: str) -> dict[str, int]:
    """Who wrote the captions, and how many: machine-written ones must never pass for published ones."""
    return dict(Counter(filter(None, shards.split(split)["text_source"].to_pylist())))
