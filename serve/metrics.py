"""What Prometheus sees of the service, beside what Ray Serve tells of itself (queues, replicas)."""

from ray.util.metrics import Counter, Gauge, Histogram

MILLISECONDS = [1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10_000]
SIZES = [1, 2, 4, 8, 16, 32, 64, 128]


class RequestMeter:
    """Requests by kind and status, and the time of their steps."""

    def __init__(self) -> None:
        self._requests = Counter(
            "stbir_requests", "Requests to /v1, by what they ask by.", ("kind", "status")
        )
        self._took = Histogram("stbir_request_ms", "From first byte to answer.", MILLISECONDS, ("kind",))
        self._steps = Histogram("stbir_step_ms", "Time of one step of a search.", MILLISECONDS, ("step",))
        self._inside = Gauge("stbir_searches_inside", "Searches inside an ingress, waiting or answered.")

    def answered(self, kind: str, status: int, took_ms: float) -> None:
        """A request has its answer."""
        self._requests.inc(tags={"kind": kind, "status": str(status)})
        self._took.observe(max(took_ms, 1e-3), {"kind": kind})

    def stepped(self, timing_ms: dict[str, float]) -> None:
        """A search has its hits, or a photo was fetched: how long each step took."""
        for step, took_ms in timing_ms.items():
            self._steps.observe(max(took_ms, 1e-3), {"step": step})

    def inside(self, count: int) -> None:
        """So many searches are inside now."""
        self._inside.set(count)


class BatchMeter:
    """How many requests a tower encodes at once."""

    def __init__(self, tower: str) -> None:
        self._sizes = Histogram("stbir_batch_size", "Requests encoded at once.", SIZES, ("tower",))
        self._sizes.set_default_tags({"tower": tower})

    def __call__(self, size: int) -> None:
        """A batch of that size is encoded."""
        self._sizes.observe(size)


class RecentMeter:
    """How often the vector of a text was still there."""

    def __init__(self) -> None:
        self._asked = Counter("stbir_recent_texts", "Texts, by whether their vector was kept.", ("found",))

    def __call__(self, found: bool) -> None:
        """A text was asked for."""
        self._asked.inc(tags={"found": str(found).lower()})
