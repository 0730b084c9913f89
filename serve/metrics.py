"""Prometheus metrics of the service, in addition to Ray Serve's own (queues, replicas)."""

from collections.abc import Callable
from typing import TYPE_CHECKING

from ray.util.metrics import Counter, Gauge, Histogram

if TYPE_CHECKING:  # the ingress, which reports requests, does not load Lance
    from stbir.gallery.gallery import Gallery

BUCKETS_MS = [1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10_000]
SIZE_BUCKETS = [1, 2, 4, 8, 16, 32, 64, 128]


class RequestMetrics:
    """Requests by kind and status, the time of their steps, and the number in flight."""

    def __init__(self) -> None:
        self._requests = Counter("stbir_requests", "Requests to /v1 by modalities.", ("kind", "status"))
        self._request_ms = Histogram("stbir_request_ms", "Time to the response.", BUCKETS_MS, ("kind",))
        self._step_ms = Histogram("stbir_step_ms", "Time of one step of a search.", BUCKETS_MS, ("step",))
        self._in_flight = Gauge("stbir_searches_inside", "Searches in flight in an ingress.")

    def record_request(self, kind: str, status: int, duration_ms: float) -> None:
        """Count one answered request."""
        self._requests.inc(tags={"kind": kind, "status": str(status)})
        self._request_ms.observe(max(duration_ms, 1e-3), {"kind": kind})

    def record_steps(self, timing_ms: dict[str, float]) -> None:
        """Record the time of each step of a search, or of a photo's fetch."""
        for step, duration_ms in timing_ms.items():
            self._step_ms.observe(max(duration_ms, 1e-3), {"step": step})

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


def gallery_gauges() -> "Callable[[Gallery], None]":
    """A function that reports the size of a gallery, and how many photos its index lacks."""
    rows = Gauge("stbir_gallery_rows", "Photos of the gallery that was loaded last.")
    unindexed = Gauge("stbir_gallery_unindexed_rows", "Photos of it that its index lacks.")

    def report(gallery: "Gallery") -> None:
        rows.set(gallery.count)
        unindexed.set(gallery.unindexed_count)

    return report
