"""Prometheus metrics of running jobs, from every node that works on them.

Ray collects them, adds the prefix `ray_` and serves them to Prometheus. deploy/grafana plots them.
"""

import time
from collections.abc import Mapping

from ray.util.metrics import Counter, Gauge

from stbir.storage.folder import Folder
from stbir.training.events import event_file
from stbir.training.loop import Metrics


class TrainMetrics:
    """Metrics of a training run; its first worker updates them after each step."""

    def __init__(self, run: str) -> None:
        tags = {"run": run}
        self._loss = _gauge("loss", "Loss of the step, by weighted term", tags, ("term",))
        self._rate = _gauge("samples_per_second", "Samples of the global batch a second", tags)
        self._waited = _gauge("waited_share", "Share of the step spent waiting for data, 0 to 1", tags)
        self._step = _gauge("step", "Steps done, over all stages", tags)
        self._stage = _gauge("stage", "Index of the current stage, from 0", tags)
        self._noise = _gauge("noise", "Curriculum noise: its probability and strength, 0 to 1", tags, ("of",))
        self._accuracy = _gauge("accuracy", "Acc@1 on the validation split, percent", tags, ("query",))

    def update_step(
        self, num_steps: int, stage: int, batch_size: int, metrics: Metrics, noise: Mapping[str, float]
    ) -> None:
        """Update after a step. `num_steps` counts the steps of all stages."""
        step_s = metrics.waited_s + metrics.worked_s
        for term, value in {"total": metrics.loss, **metrics.terms}.items():
            self._loss.set(value, {"term": term})
        self._rate.set(batch_size / step_s)
        self._waited.set(metrics.waited_s / step_s)
        self._step.set(num_steps)
        self._stage.set(stage)
        for parameter, value in noise.items():
            self._noise.set(value, {"of": parameter})

    def update_accuracy(self, accuracies: Mapping[str, float]) -> None:
        """Update after a validation: percent by kind of query."""
        for query, percent in accuracies.items():
            self._accuracy.set(percent, {"query": query})


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


def _gauge(name: str, description: str, tags: dict[str, str], tag_keys: tuple[str, ...] = ()) -> Gauge:
    gauge = Gauge(f"stbir_train_{name}", description, (*tags, *tag_keys))
    gauge.set_default_tags(tags)
    return gauge
