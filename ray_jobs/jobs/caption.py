"""SHARDS → SHARDS with captions by a vision-language model: survey, estimate, requests, publication."""

import argparse
import contextlib
import logging
import time
from collections import Counter
from collections.abc import Generator
from dataclasses import replace
from typing import Any

import ray

from ray_jobs.captioning import tasks, vllm
from ray_jobs.captioning.chat import Endpoint, check_endpoint
from ray_jobs.captioning.ledger import CaptionTarget, Ledger, Outcome
from ray_jobs.captioning.options import build_endpoint, check_options, engine_options
from ray_jobs.captioning.sample import sample_job, write_sheet
from ray_jobs.captioning.tasks import Job
from ray_jobs.cluster import placement
from ray_jobs.cluster.connection import connect
from stbir.captioning.answer_store import AnswerStore, Usage
from stbir.captioning.estimate import Estimate, Price, estimate, format_duration
from stbir.captioning.prompt import load_prompt
from stbir.data.shard_writer import QUARANTINE, ShardPart, count_strokes, publish, write_quarantine
from stbir.data.shards import Shards, open_shards
from stbir.errors import InputError, JobFailedError
from stbir.storage.folder import Folder
from stbir.storage.lock import Lock, artifact_lock
from stbir.storage.manifest import Manifest

log = logging.getLogger("caption")

CAPTIONS_QUARANTINE = "captions_quarantine.parquet"
_CHUNK_SIZE = 64  # photos per task
_PROGRESS_INTERVAL_S = 3.0
Backend = Endpoint | vllm.EngineConfig
Results = Generator[tuple[dict[str, Outcome], Usage]]


def caption(args: argparse.Namespace) -> dict[str, Any]:
    """Run the command. Raises JobFailedError if too many photos fail, InputError for invalid input."""
    check_options(args)
    backend = _backend(args)
    shards, out = open_shards(args.shards), Folder(args.out)
    with artifact_lock(out, "shards") as lock:
        connect()
        return _caption(args, shards, out, backend, lock)


def _caption(
    args: argparse.Namespace, shards: Shards, out: Folder, backend: Backend, lock: Lock
) -> dict[str, Any]:
    job = _job(args, shards, out)
    ledger, usage = _survey(job, args.resource_timeout)
    _confirm(args, _estimate(args, job, [target.size for target in ledger.pending()], usage))
    max_error_rate = 1.0 if args.sample else args.max_error_rate
    _collect(ledger, _request(args, job, backend, ledger.pending()), max_error_rate)
    summary = _summary(args, job, ledger)
    lock.check()
    if args.sample:
        return {**summary, **_write_sheet(args, out, job, ledger, usage)}
    write_quarantine(out, ledger.faults(), CAPTIONS_QUARANTINE)
    _check_error_rate(out, ledger, max_error_rate, summary)
    parts = _write_parts(job, out, ledger, args.resource_timeout)
    lock.check()
    manifest = _publish(job, out, parts, ledger, summary)
    log.info("%s", format_counts(ledger.counts()))
    return {**summary, "digest": manifest.digest, "files": len(manifest.detail("files"))}


def _backend(args: argparse.Namespace) -> Backend:
    """Check the backend before any photo is read."""
    if args.vllm:
        vllm.check_installed()
        return vllm.EngineConfig(args.model, args.workers, args.concurrency, engine_options(args.engine))
    endpoint = build_endpoint(args)
    check_endpoint(endpoint)
    return endpoint


def _job(args: argparse.Namespace, shards: Shards, out: Folder) -> Job:
    prompt = load_prompt(args.prompt, args.max_word_count, args.max_side)
    store = AnswerStore(Folder(args.answers) if args.answers else out.child("answers"), args.model, prompt)
    source = f"{args.model} prompt {prompt.version}"
    # A copy of the shards has no cached index, which would travel to each task.
    job = Job(replace(shards), store, prompt, source, args.replace)
    return job if args.sample is None else sample_job(job, shards, args.sample)


def _survey(job: Job, timeout_s: float) -> tuple[Ledger, Usage]:
    """Find the photos that need a caption. Returns the usage of their stored answers, too."""
    task, handle, concurrency = ray.remote(tasks.survey_file), ray.put(job), _cluster_cpus(timeout_s)
    calls = ((handle, file) for file in job.shards.files)
    by_file = dict(tasks.stream_results(task, calls, concurrency))
    surveys = [by_file[file] for file in job.shards.files]
    targets = [target for survey in surveys for target in survey.targets]
    usage = sum((survey.usage for survey in surveys), Usage())
    return Ledger(sum(survey.photo_count for survey in surveys), targets), usage


def _cluster_cpus(timeout_s: float) -> int:
    """CPUs of the cluster. Raises InputError if it has none after the timeout."""
    placement.require_resources("reading and writing shards", cpus=1, timeout_s=timeout_s)
    return max(1, int(ray.cluster_resources().get("CPU", 1)))


def _estimate(args: argparse.Namespace, job: Job, sizes: list[tuple[int, int]], usage: Usage) -> Estimate:
    price = Price(args.price_in, args.price_out)
    return estimate(sizes, job.prompt, usage, args.workers * args.concurrency, price)


def _confirm(args: argparse.Namespace, expected: Estimate) -> None:
    """Log the estimate. Raises InputError if it exceeds --confirm-above without --yes."""
    basis = f"from {expected.measured} measured answers" if expected.measured else "by rule of thumb"
    cost = "" if expected.cost is None else f", cost {expected.cost:,.2f}"
    message = (
        f"{expected.calls:,} calls, about {expected.tokens_in:,} input and {expected.tokens_out:,} output"
        f" tokens, {format_duration(expected.seconds)}{cost} ({basis})"
    )
    if expected.calls > args.confirm_above and not args.yes:
        raise InputError(f"{message}: more than --confirm-above {args.confirm_above}; give --yes to start")
    log.info("%s", message)


def _request(args: argparse.Namespace, job: Job, backend: Backend, targets: list[CaptionTarget]) -> Results:
    if isinstance(backend, vllm.EngineConfig) and targets:  # an engine takes minutes to start
        timeout_s = args.resource_timeout
        placement.require_resources("--vllm: an engine", cpus=1, timeout_s=timeout_s, gpus=backend.gpus)
        return vllm.caption_targets(job, vllm.build_engine(backend), targets)
    chunks = (targets[start : start + _CHUNK_SIZE] for start in range(0, len(targets), _CHUNK_SIZE))
    handles = ray.put(job), ray.put(backend)
    calls = ((*handles, chunk, args.concurrency) for chunk in chunks)
    return tasks.stream_results(ray.remote(tasks.caption_chunk), calls, args.workers)


def _collect(ledger: Ledger, results: Results, max_error_rate: float) -> None:
    """Record results. Stops early, without further paid requests, when the error rate is exceeded."""
    total, done, logged_at = len(ledger.pending()), 0, time.monotonic()
    with contextlib.closing(results):
        for outcomes, usage in results:
            ledger.add(outcomes, usage)
            done += len(outcomes)
            if time.monotonic() - logged_at > _PROGRESS_INTERVAL_S or done == total:
                log.info("%d of %d photos done, %d without a caption", done, total, ledger.error_count)
                logged_at = time.monotonic()
            if ledger.error_count > max_error_rate * ledger.photo_count:
                return


def _summary(args: argparse.Namespace, job: Job, ledger: Ledger) -> dict[str, Any]:
    usage = ledger.usage
    return {
        "out": args.out,
        "model": args.model,
        "prompt": job.prompt.version,
        "counts": ledger.counts(),
        "reasons": dict(Counter(fault.reason for fault in ledger.faults())),
        "calls": usage.calls,
        "tokens": {"in": usage.tokens_in, "out": usage.tokens_out},
        "cost": Price(args.price_in, args.price_out).cost(usage),
        "agreement": ledger.agreement(),
    }


def _write_sheet(
    args: argparse.Namespace, out: Folder, job: Job, ledger: Ledger, usage: Usage
) -> dict[str, Any]:
    """Write the sheet, with an estimate for the remaining photos from the usage of the sample."""
    index = open_shards(args.shards).index.to_pylist()
    remaining = sum(tasks.needs_caption(job, row) for row in index) - len(ledger.targets)
    size = (job.prompt.max_side, job.prompt.max_side)
    expected = _estimate(args, job, [size] * remaining, usage + ledger.usage)
    return write_sheet(out, args, job, ledger, expected)


def format_counts(counts: dict[str, int]) -> str:
    """Format the counts as a sum."""
    parts = (f"{count} {name.replace('_', ' ')}" for name, count in counts.items() if name != "in")
    return f"{counts['in']} photos in = {' + '.join(parts)}"


def _check_error_rate(out: Folder, ledger: Ledger, max_error_rate: float, summary: dict[str, Any]) -> None:
    if ledger.error_count <= max_error_rate * ledger.photo_count:
        return
    reasons = ", ".join(f"{count} {reason}" for reason, count in summary["reasons"].items())
    raise JobFailedError(
        f"{format_counts(summary['counts'])} ({reasons}): more than --max-error-rate {max_error_rate} allows;"
        f" nothing is published; see {out.uri}/{CAPTIONS_QUARANTINE}; stored answers are reused",
        summary,
    )


def _write_parts(job: Job, out: Folder, ledger: Ledger, timeout_s: float) -> list[ShardPart]:
    texts, handle = ledger.texts(), ray.put(job)
    calls = ((handle, out, n, file, texts.get(file, {})) for n, file in enumerate(job.shards.files))
    return list(tasks.stream_results(ray.remote(tasks.write_file), calls, _cluster_cpus(timeout_s)))


def _publish(
    job: Job, out: Folder, parts: list[ShardPart], ledger: Ledger, summary: dict[str, Any]
) -> Manifest:
    source = job.shards
    if source.folder.uri != out.uri and source.folder.exists(QUARANTINE):
        out.write(QUARANTINE, source.folder.read(QUARANTINE))
    photo_count = sum(part.photos.total() for part in parts)
    if photo_count != ledger.photo_count:
        raise RuntimeError(f"{ledger.photo_count} photos read, {photo_count} written")
    sketch_count = sum(part.sketches.total() for part in parts)
    counts = {**ledger.counts(), "photos": photo_count, "sketches": sketch_count, **count_strokes(parts)}
    names = ("model", "prompt", "reasons", "calls", "tokens", "agreement")
    captions = {name: summary[name] for name in names} | {"quarantine": CAPTIONS_QUARANTINE}
    details = {**source.manifest.details, "captions": captions}
    return publish(out, parts, counts, details, made_from=source.manifest.digest)
