"""What a monitor sees of a running job: Prometheus figures of every node that does its work.

Ray collects them and serves them to Prometheus, each prefixed with `ray_`. deploy/grafana draws them.
"""

from collections.abc import Mapping

from ray.util.metrics import Counter, Gauge

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


class PhotoMeters:
    """Counted by what decodes and what encodes photos, each in its own process."""

    def __init__(self, job: str) -> None:
        self._photos = Counter("stbir_photos", "Photos by what became of them", ("job", "outcome"))
        self._job = job

    def count(self, outcome: str, photos: int) -> None:
        """`photos` more that are decoded, embedded, or in quarantine."""
        if photos:
            self._photos.inc(photos, {"job": self._job, "outcome": outcome})


def _gauge(name: str, says: str, tags: dict[str, str], own: tuple[str, ...] = ()) -> Gauge:
    gauge = Gauge(f"stbir_train_{name}", says, (*tags, *own))
    gauge.set_default_tags(tags)
    return gauge
