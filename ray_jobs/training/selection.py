"""Saving the checkpoints of a run, and the choice of the one that is published: the best on validation."""

from typing import Any

import torch

from ray_jobs.training.job import Job
from ray_jobs.training.validation import mean_mrr
from stbir.evaluation.evaluate import evaluate
from stbir.model import checkpoint
from stbir.model.retriever import Retriever
from stbir.storage.folder import Folder
from stbir.storage.manifest import read_manifest
from stbir.training.gather import wait_for_all
from stbir.training.stages import TrainableModel

Scores = dict[str, Any]  # `validation` in the manifest of a checkpoint


def validate(job: Job, model: TrainableModel, stage: str, epoch: float) -> Scores | None:
    """Mean MRR and Acc@1 by kind of query on the validation photos, in percent; None without validation."""
    if job.validation is None:
        return None
    results = evaluate(model.retriever, job.validation.rows()).results
    accuracy = {kind: acc for kind, summary in results.items() if (acc := summary["acc@1"]) is not None}
    where = {"photos": job.validation.name, "stage": stage, "epoch": round(epoch, 2)}
    return {**where, "mrr": mean_mrr(results), "acc@1": accuracy}


def save_checkpoint(
    job: Job,
    retriever: Retriever,
    num_steps: int,
    training: dict[str, Any] | None,
    scores: Scores | None = None,
) -> None:
    """Write a checkpoint at --out, publish it there if none is better, and remove older ones.

    Raises InputError if the lock is lost.
    """
    job.lock.check()
    details: dict[str, Any] = {"photos": job.photos.digest, "data": job.data_digests}
    details |= {"init_from": job.init_digest} if job.init_digest else {}
    checkpoint.save(
        job.out,
        f"step-{num_steps:08d}",
        retriever,
        job.recipe,
        made_from=job.data_digests[0],
        counts={"steps": num_steps, "total": sum(job.steps), "photos": len(job.photos)},
        details={**details, "validation": scores} if scores else details,
        training=training,
        is_published=num_steps == 0 or _is_best(job, scores),
    )
    checkpoint.prune(job.out)


def published_scores(job: Job) -> Scores | None:
    """The scores of the published checkpoint."""
    scores: Scores | None = read_manifest(Folder(job.out), "checkpoint").details.get("validation")
    return scores


def _is_best(job: Job, scores: Scores | None) -> bool:
    """Whether the published checkpoint has no higher mean MRR; of equal ones the later is published."""
    if job.validation is None or job.select == "last":
        return True
    published = published_scores(job)
    return scores is not None and (published is None or scores["mrr"] >= published["mrr"])


def restore_best(job: Job, model: TrainableModel, num_steps: int, device: torch.device) -> Scores | None:
    """Before a stage: continue from the published checkpoint if it is not that of `num_steps` steps.

    Returns the scores of the restored checkpoint; None if the model stays as it is. A stage that ends below
    its best epoch, or below its start, is rolled back in this way.
    """
    wait_for_all()  # the first worker may still be publishing
    published = read_manifest(Folder(job.out), "checkpoint")
    if published.counts["steps"] == num_steps:
        return None
    model.retriever = checkpoint.load(job.out).to(device)
    model.load_class_weight(checkpoint.read_training(job.out))
    return published.details.get("validation")
