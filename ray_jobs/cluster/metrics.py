"""What a monitor sees of a running job: Prometheus figures of every node that does its work.

Ray collects them and serves them to Prometheus, each prefixed with `ray_`. deploy/grafana draws them.
"""

import time
from collections.abc import Mapping

from ray.util.metrics import Counter, Gauge

from stbir.storage.folder import Folder
from stbir.training.events import event_file
from stbir.training.loop import Metrics


class TrainMeters:
    """Set by the first worker of a run after each step."""

    def __init__(self, run: str) -> None:
        tags = {"run": run}
        self._loss = _gauge("loss", "Loss of the step, by weighted term", tags, ("term",))
        self._rate = _gauge("samples_per_second", "Samples of the global batch a second", tags)
        self._waited = _gauge("waited_share", "Share of the step spent waiting for data, 0 to 1", tags)
        self._step = _gauge("step", "Steps done, over all stages", tags)
        self._stage = _gauge("stage", "Number of the stage under way, from 0", tags)
        self._noise = _gauge("noise", "Curriculum noise: its probability and strength, 0 to 1", tags, ("of",))
        self._accuracy = _gauge("accuracy", "Acc@1 on the validation split, percent", tags, ("query",))

    def step(self, done: int, stage: int, batch: int, metrics: Metrics, noise: Mapping[str, float]) -> None:
        """After a step: `done` counts over all stages, `batch` samples a step."""
        spent = metrics.waited_s + metrics.worked_s
        for term, value in {"total": metrics.loss, **metrics.terms}.items():
            self._loss.set(value, {"term": term})
        self._rate.set(batch / spent)
        self._waited.set(metrics.waited_s / spent)
        self._step.set(done)
        self._stage.set(stage)
        for of, level in noise.items():
            self._noise.set(level, {"of": of})

    def validated(self, accuracies: Mapping[str, float]) -> None:
        """After a validation: percent by kind of query."""
        for query, percent in accuracies.items():
            self._accuracy.set(percent, {"query": query})


class EmbedMeters:
    """Set by an embedding job's driver while it follows the work; at its end the same for TensorBoard."""

    def __init__(self, gallery: str) -> None:
        self._photos = Counter("stbir_photos", "Photos by what became of them", ("gallery", "outcome"))
        self._waited = Gauge(
            "stbir_embed_waited_share", "Share of its time the encoder waits, 0 to 1", ("gallery",)
        )
        self._gallery, self._began = {"gallery": gallery}, time.monotonic()
        self._counted: dict[str, int] = {}
        self._figures: list[tuple[int, dict[str, float]]] = []

    def show(self, counts: Mapping[str, int], waited: float = 0.0) -> None:
        """So many photos so far, by what became of them; `waited` from 0 to 1."""
        for outcome, photos in counts.items():
            if more := photos - self._counted.get(outcome, 0):
                self._photos.inc(more, {**self._gallery, "outcome": outcome})
        self._counted = dict(counts)
        self._waited.set(waited, self._gallery)
        seconds = round(time.monotonic() - self._began)
        self._figures.append((seconds, {"waited": waited, **{f"photos/{k}": v for k, v in counts.items()}}))

    def write(self, folder: Folder) -> None:
        """All that was shown, over seconds, as one event file in the gallery's folder."""
        folder.write(f"tensorboard/events.out.tfevents.{time.time_ns()}", event_file(self._figures))


def _gauge(name: str, says: str, tags: dict[str, str], own: tuple[str, ...] = ()) -> Gauge:
    gauge = Gauge(f"stbir_train_{name}", says, (*tags, *own))
    gauge.set_default_tags(tags)
    return gauge
