"""Prometheus metrics of the service, in addition to Ray Serve's own (queues, replicas)."""

from collections.abc import Callable, Collection
from typing import TYPE_CHECKING

from ray.util.metrics import Counter, Gauge, Histogram

if TYPE_CHECKING:  # the ingress, which reports requests, does not load Lance
    from stbir.gallery.gallery import Gallery

BUCKETS_MS = [1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10_000]
MAX_KEYS, OTHER = 100, "other"
SIZE_BUCKETS = [1, 2, 4, 8, 16, 32, 64, 128]


class RequestMetrics:
    """Requests by kind, status and gallery and by key, the time of their steps, and the number in flight.

    Series are bounded: another gallery than those of `galleries`, and a key after MAX_KEYS, is "other".
    """

    def __init__(self, galleries: Collection[str]) -> None:
        self._galleries, self._keys = galleries, set[str]()
        self._requests = Counter(
            "stbir_requests", "Requests to /v1 by modalities.", ("kind", "status", "gallery")
        )
        self._of_keys = Counter("stbir_key_requests", "Requests to /v1 by API key.", ("key", "status"))
        self._request_ms = Histogram(
            "stbir_request_ms", "Time to the response.", BUCKETS_MS, ("kind", "gallery")
        )
        self._step_ms = Histogram(
            "stbir_step_ms", "Time of one step of a search.", BUCKETS_MS, ("step", "gallery")
        )
        self._in_flight = Gauge("stbir_searches_inside", "Searches in flight in an ingress.")

    def record_request(
        self, kind: str, status: int, duration_ms: float, gallery: str, key: str | None
    ) -> None:
        """Count one answered request. `key`: the name of its API key; None if it has none."""
        tags = {"kind": kind, "gallery": self._gallery_label(gallery)}
        self._requests.inc(tags={**tags, "status": str(status)})
        self._request_ms.observe(max(duration_ms, 1e-3), tags)
        if key is not None:
            if len(self._keys) < MAX_KEYS:
                self._keys.add(key)
            label = key if key in self._keys else OTHER
            self._of_keys.inc(tags={"key": label, "status": str(status)})

    def record_steps(self, timing_ms: dict[str, float], gallery: str) -> None:
        """Record the time of each step of a search, or of a photo's fetch."""
        for step, duration_ms in timing_ms.items():
            self._step_ms.observe(
                max(duration_ms, 1e-3), {"step": step, "gallery": self._gallery_label(gallery)}
            )

    def _gallery_label(self, gallery: str) -> str:
        return gallery if gallery in self._galleries else OTHER

    def set_in_flight(self, count: int) -> None:
        """Set the number of searches in flight."""
        self._in_flight.set(count)


def count_backend_fallback(encoder: str) -> None:
    """Count an encoder that torch runs because the chosen backend failed (`stbir.model.backend`)."""
    fallbacks = Counter(
        "stbir_backend_fallbacks", "Encoders that torch runs for another backend.", ("tower",)
    )
    fallbacks.inc(tags={"tower": encoder})


def batch_size_observer(encoder: str) -> Callable[[int], None]:
    """A function that records the size of each batch of an encoder."""
    sizes = Histogram("stbir_batch_size", "Requests encoded in one batch.", SIZE_BUCKETS, ("tower",))
    sizes.set_default_tags({"tower": encoder})
    return lambda size: sizes.observe(size)


def text_cache_counter() -> Callable[[bool], None]:
    """A function that counts text lookups by whether the cache held the vector."""
    lookups = Counter("stbir_recent_texts", "Texts, by whether the cache held their vector.", ("found",))
    return lambda is_hit: lookups.inc(tags={"found": str(is_hit).lower()})


def gallery_gauges(name: str) -> "Callable[[Gallery], None]":
    """A function that reports the size of the gallery of that name, and how many photos its index lacks."""
    rows = Gauge("stbir_gallery_rows", "Photos of the version that was loaded last.", ("gallery",))
    unindexed = Gauge("stbir_gallery_unindexed_rows", "Photos of it that its index lacks.", ("gallery",))
    for gauge in (rows, unindexed):
        gauge.set_default_tags({"gallery": name})

    def report(gallery: "Gallery") -> None:
        rows.set(gallery.count)
        unindexed.set(gallery.unindexed_count)

    return report
