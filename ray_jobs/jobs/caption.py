"""SHARDS → SHARDS with captions: a vision-language model is asked about each picture, once."""

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
from ray_jobs.captioning.chat import Endpoint, refuse_unreachable
from ray_jobs.captioning.ledger import Ledger, Outcome, Wanted
from ray_jobs.captioning.options import check, endpoint, engine_settings
from ray_jobs.captioning.sample import spread, write_sheet
from ray_jobs.captioning.tasks import Job
from ray_jobs.cli import Failed
from ray_jobs.cluster import placement
from ray_jobs.cluster.connection import connect
from stbir.captioning.answer_store import Answers, Usage
from stbir.captioning.estimate import Estimate, Price, estimate, lasting
from stbir.captioning.prompt import load_prompt
from stbir.data.shard_writer import QUARANTINE, publish, write_quarantine
from stbir.data.shards import Shards, open_shards
from stbir.errors import InputError
from stbir.storage.folder import Folder
from stbir.storage.manifest import Manifest, refuse_other

log = logging.getLogger("caption")

UNCAPTIONED = "captions_quarantine.parquet"  # beside that of the photos that could not be read
_CHUNK = 64  # pictures in a task that asks
_PROGRESS_SECONDS = 3.0
Answered = Generator[tuple[dict[str, Outcome], Usage]]


def caption(args: argparse.Namespace) -> dict[str, Any]:
    """Run the command. Raises Failed where too many photos get no caption, InputError for bad input."""
    check(args)
    backend = _backend(args)
    shards, out = open_shards(args.shards), Folder(args.out)
    _check_writable(out)
    connect()
    job = _job(args, shards, out)
    ledger, known = _surveyed(job, args.wait)
    _confirm(args, _forecast(args, job, [each.size for each in ledger.pending()], known))
    _ask(ledger, _answers(args, job, backend, ledger.pending()), 1.0 if args.sample else args.max_bad)
    summary = _summary(args, job, ledger)
    if args.sample:
        return {**summary, **_sheet(args, out, job, ledger, known)}
    write_quarantine(out, ledger.faults(), UNCAPTIONED)
    _refuse_bad(out, ledger, args.max_bad, summary)
    manifest = _publish(job, out, ledger, summary, args.wait)
    log.info("%s", arithmetic(ledger.counts()))
    return {**summary, "digest": manifest.digest, "files": len(manifest.detail("files"))}


def _backend(args: argparse.Namespace) -> Endpoint | vllm.Cluster:
    """Who is asked; whatever is wrong with that is said before any photo is read."""
    if args.vllm:
        vllm.refuse_missing()
        return vllm.Cluster(args.model, args.workers, args.in_flight, engine_settings(args.engine))
    there = endpoint(args)
    refuse_unreachable(there)
    return there


def _check_writable(out: Folder) -> None:
    refuse_other(out, "shards")
    out.write(".probe", b"")
    out.remove(".probe")


def _job(args: argparse.Namespace, shards: Shards, out: Folder) -> Job:
    prompt = load_prompt(args.prompt, args.words, args.pixels)
    kept = Folder(args.answers) if args.answers else out.child("answers")
    answers = Answers(kept, args.model, prompt)
    source = f"{args.model} prompt {prompt.version}"
    lean = replace(shards)  # without the index that it may have read
    job = Job(lean, answers, prompt, source, args.replace)
    return job if args.sample is None else spread(job, shards, args.sample)


def _surveyed(job: Job, wait: float) -> tuple[Ledger, Usage]:
    """Which photos want a caption; what is known of them, and what that has cost."""
    survey = ray.remote(tasks.survey)
    handle, at_once = ray.put(job), _everywhere(wait)
    found = dict(tasks.stream(survey, ((handle, file) for file in job.shards.files), at_once))
    wanted = [each for file in job.shards.files for each in found[file].wanted]
    known = sum((each.known for each in found.values()), Usage())
    return Ledger(sum(each.photos for each in found.values()), wanted), known


def _everywhere(wait: float) -> int:
    """Tasks that keep the whole cluster busy; one that is at zero has so many seconds before to get a node.
    Raises InputError where it gets none."""
    placement.demand_room("reading and writing shards", cpus=1, wait=wait)
    return max(1, int(ray.cluster_resources().get("CPU", 1)))


def _forecast(args: argparse.Namespace, job: Job, sizes: list[tuple[int, int]], known: Usage) -> Estimate:
    price = Price(args.price_in, args.price_out)
    return estimate(sizes, job.prompt, known, args.workers * args.in_flight, price)


def _confirm(args: argparse.Namespace, forecast: Estimate) -> None:
    """Say what is about to happen. Raises InputError where that is much and was not agreed to."""
    how = f"measured on {forecast.measured}" if forecast.measured else "by rule of thumb"
    cost = "" if forecast.cost is None else f", {forecast.cost:,.2f} at the price given"
    about = (
        f"{forecast.calls:,} calls, about {forecast.tokens_in:,} tokens in and {forecast.tokens_out:,} out,"
        f" {lasting(forecast.seconds)}{cost} ({how})"
    )
    if forecast.calls > args.confirm_above and not args.yes:
        raise InputError(f"{about}: more than --confirm-above {args.confirm_above}; give --yes to begin")
    log.info("%s", about)


def _answers(
    args: argparse.Namespace, job: Job, backend: Endpoint | vllm.Cluster, pending: list[Wanted]
) -> Answered:
    if isinstance(backend, vllm.Cluster) and pending:  # an engine takes minutes to start
        placement.demand_room("--vllm: an engine", cpus=1, wait=args.wait, gpus=backend.gpus)
        return vllm.ask(job, vllm.engine(backend), pending)
    chunks = (pending[start : start + _CHUNK] for start in range(0, len(pending), _CHUNK))
    shared = ray.put(job), ray.put(backend)
    calls = ((*shared, chunk, args.in_flight) for chunk in chunks)
    return tasks.stream(ray.remote(tasks.ask), calls, args.workers)


def _ask(ledger: Ledger, answers: Answered, max_bad: float) -> None:
    """Ask until all is answered, or more is bad than may be: what cannot be published is not paid for."""
    total, done, shown = len(ledger.pending()), 0, time.monotonic()
    with contextlib.closing(answers):
        for outcomes, usage in answers:
            ledger.add(outcomes, usage)
            done += len(outcomes)
            if time.monotonic() - shown > _PROGRESS_SECONDS or done == total:
                log.info(
                    "%d of %d pictures asked about, %d photos without a caption", done, total, ledger.bad
                )
                shown = time.monotonic()
            if ledger.bad > max_bad * ledger.photos:
                return


def _summary(args: argparse.Namespace, job: Job, ledger: Ledger) -> dict[str, Any]:
    spent = ledger.spent
    return {
        "out": args.out,
        "model": args.model,
        "prompt": job.prompt.version,
        "counts": ledger.counts(),
        "reasons": dict(Counter(fault.reason for fault in ledger.faults())),
        "calls": spent.calls,
        "tokens": {"in": spent.tokens_in, "out": spent.tokens_out},
        "cost": Price(args.price_in, args.price_out).of(spent),
        "agreement": ledger.agreement(),
    }


def _sheet(args: argparse.Namespace, out: Folder, job: Job, ledger: Ledger, known: Usage) -> dict[str, Any]:
    """Write the sheet. What the other photos will take is measured on these."""
    index = open_shards(args.shards).index.to_pylist()
    rest = sum(tasks.is_wanted(job, row) for row in index) - len(ledger.wanted)
    largest = (job.prompt.pixels, job.prompt.pixels)
    forecast = _forecast(args, job, [largest] * rest, known + ledger.spent)
    return write_sheet(out, args, job, ledger, forecast)


def arithmetic(counts: dict[str, int]) -> str:
    """The counts as a sum."""
    parts = (f"{count} {name.replace('_', ' ')}" for name, count in counts.items() if name != "in")
    return f"{counts['in']} photos in = {' + '.join(parts)}"


def _refuse_bad(out: Folder, ledger: Ledger, max_bad: float, summary: dict[str, Any]) -> None:
    if ledger.bad <= max_bad * ledger.photos:
        return
    reasons = ", ".join(f"{count} {reason}" for reason, count in summary["reasons"].items())
    raise Failed(
        f"{arithmetic(summary['counts'])} ({reasons}): more than --max-bad {max_bad} allows; nothing is"
        f" published, {out.uri}/{UNCAPTIONED} names each, what was answered is kept",
        summary,
    )


def _publish(job: Job, out: Folder, ledger: Ledger, summary: dict[str, Any], wait: float) -> Manifest:
    texts, handle = ledger.texts(), ray.put(job)
    files = enumerate(job.shards.files)
    calls = ((handle, out, number, file, texts.get(file, {})) for number, file in files)
    parts = list(tasks.stream(ray.remote(tasks.write), calls, _everywhere(wait)))
    given, unread = job.shards.manifest, job.shards.folder
    if unread.uri != out.uri and unread.exists(QUARANTINE):
        out.write(QUARANTINE, unread.read(QUARANTINE))
    photos = sum(part.photos.total() for part in parts)
    if photos != ledger.photos:
        raise RuntimeError(f"photos got lost: {ledger.photos} in, {photos} written")
    sketches = sum(part.sketches.total() for part in parts)
    counts = {**ledger.counts(), "photos": photos, "sketches": sketches}
    told = {name: summary[name] for name in ("model", "prompt", "reasons", "calls", "tokens", "agreement")}
    told["quarantine"] = UNCAPTIONED
    return publish(out, parts, counts, {**given.details, "captions": told}, made_from=given.digest)
