"""Prometheus metrics of running jobs, from every node that works on them.

Ray collects them, adds the prefix `ray_` and serves them to Prometheus. deploy/grafana plots them.
"""

import time
from collections.abc import Mapping

from ray.util.metrics import Counter, Gauge

from stbir.storage.folder import Folder
from stbir.training.events import event_file


class TrainMetrics:
    """Metrics of a training run; its first worker updates them after each step and each validation."""

    def __init__(self, run: str) -> None:
        # By the name of the scalars in `ray_jobs.training.log`, each with what its part after `/` tags.
        self._gauges = {
            "loss": _gauge("loss", "Loss of the step, by weighted term", run, "term"),
            "samples_per_s": _gauge("samples_per_second", "Samples of the global batch a second", run),
            "waited": _gauge("waited_share", "Share of the step spent waiting for data, 0 to 1", run),
            "step": _gauge("step", "Steps done, over all stages", run),
            "stage": _gauge("stage", "Index of the current stage, from 0", run),
            "noise": _gauge("noise", "Curriculum noise: its probability and strength, 0 to 1", run, "of"),
            "val acc@1": _gauge("accuracy", "Acc@1 on the validation split, percent", run, "query"),
        }

    def update(self, scalars: Mapping[str, float]) -> None:
        """Set the metrics of a step or a validation. Others are only in TensorBoard."""
        for name, value in scalars.items():
            name, _, part = name.partition("/")
            if name in self._gauges:
                gauge, tag_keys = self._gauges[name]
                gauge.set(value, dict.fromkeys(tag_keys, part or "total"))


class EmbedMetrics:
    """Metrics of an embedding job; its driver updates them, and writes them for TensorBoard at the end."""

    def __init__(self, gallery: str) -> None:
        self._photos = Counter("stbir_photos", "Photos by outcome", ("gallery", "outcome"))
        self._waited = Gauge(
            "stbir_embed_waited_share", "Share of time that the encoder waits for data, 0 to 1", ("gallery",)
        )
        self._gallery, self._start = {"gallery": gallery}, time.monotonic()
        self._counts: dict[str, int] = {}
        self._history: list[tuple[int, dict[str, float]]] = []

    def update(self, counts: Mapping[str, int], waited: float = 0.0) -> None:
        """Set the photos so far by outcome, and the share of its time that the encoder waited (0 to 1)."""
        for outcome, photos in counts.items():
            if increase := photos - self._counts.get(outcome, 0):
                self._photos.inc(increase, {**self._gallery, "outcome": outcome})
        self._counts = dict(counts)
        self._waited.set(waited, self._gallery)
        seconds = round(time.monotonic() - self._start)
        self._history.append((seconds, {"waited": waited, **{f"photos/{k}": v for k, v in counts.items()}}))

    def write(self, folder: Folder) -> None:
        """Write all updates as one TensorBoard event file into the gallery's folder."""
        folder.write(f"tensorboard/events.out.tfevents.{time.time_ns()}", event_file(self._history))


def _gauge(name: str, description: str, run: str, *tag_keys: str) -> tuple[Gauge, tuple[str, ...]]:
    gauge = Gauge(f"stbir_train_{name}", description, ("run", *tag_keys))
    gauge.set_default_tags({"run": run})
    return gauge, tag_keys
