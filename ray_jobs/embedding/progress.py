"""The progress of an embedding job on standard error (formatted by tqdm)."""

import logging
import shutil
import sys
import threading
import time
from collections.abc import Callable

from tqdm import tqdm

from ray_jobs.embedding.pipeline import EmbeddedPart
from stbir.embedding.counts import Counts
from stbir.errors import InputError

log = logging.getLogger(__name__)
_INTERVAL_S = 5.0


class Progress:
    """Prints a line every few seconds; on a terminal, a progress bar."""

    def __init__(
        self, count: Callable[[], int], report: Callable[[dict[str, int], float], None] = lambda *_: None
    ) -> None:
        """`count` returns the number of photos in the catalogue; it runs in a thread. `report` receives the
        counts and the encoder's wait share with each line."""
        self.counts, self._report = Counts(), report
        self.batch_size = 0
        self.backends = set[str]()  # of the encoder actors
        self._num_photos: int | None = None
        self._wait_s = self._encode_s = 0.0
        self._start = self._latest = self._printed = time.monotonic()
        self._num_warmup = 0  # photos of the first part, whose time includes the start of the actors
        self._counting = threading.Thread(target=self._count, args=(count,), daemon=True)
        self._counting.start()

    def add(self, part: EmbeddedPart) -> None:
        """Count a part, and print a line if the last one is old enough."""
        self.counts.add(part.decoded)
        self._latest = time.monotonic()
        if not self._num_warmup:
            self._num_warmup, self._start = self.counts.total, self._latest
        self._wait_s += part.encoded.wait_s
        self._encode_s += part.encoded.encode_s
        self.batch_size = part.encoded.batch_size or self.batch_size
        self.backends |= {part.encoded.backend} - {""}
        if self._latest - self._printed > _INTERVAL_S:
            self.refresh()

    @property
    def wait_share(self) -> float:
        """The share of time that the encoder waits for photos, 0 to 1."""
        return self._wait_s / max(self._wait_s + self._encode_s, 1e-9)

    @property
    def rate(self) -> float:
        """Photos a second, of any outcome, without the first part."""
        return (self.counts.total - self._num_warmup) / max(self._latest - self._start, 1e-9)

    def refresh(self) -> None:
        """Print the line and report the counts."""
        self._printed = time.monotonic()
        on_terminal = sys.stderr.isatty()
        rate = ", {rate_noinv_fmt}" if self.rate else ""  # unknown after a single part
        remaining = ", {remaining} left" if self._num_photos and self.rate else ""
        status = (
            f"{{n_fmt}} of {self._num_photos or '?'} photos{rate}{remaining};"
            f" {self.counts.quarantined} quarantined, {self.counts.failed} failed;"
            f" the encoder waited {self.wait_share:.0%}"
        )
        line = tqdm.format_meter(
            self.counts.total,
            self._num_photos or 0,
            self._latest - self._start,
            ncols=shutil.get_terminal_size().columns if on_terminal else None,
            unit="",
            rate=self.rate,
            bar_format=f"{status} |{{bar}}|" if on_terminal else status,
        )
        print(f"\r{line}\033[K" if on_terminal else f"{line}\n", end="", file=sys.stderr, flush=True)
        self._report(self.counts.by_outcome(), self.wait_share)

    def close(self) -> int | None:
        """Print the last line. Returns the number of photos in the catalogue; None if counting failed."""
        self._counting.join()
        self.refresh()
        if sys.stderr.isatty():
            print(file=sys.stderr)
        return self._num_photos

    def _count(self, count: Callable[[], int]) -> None:
        try:
            self._num_photos = count()
        except InputError as error:  # the pipeline lists the catalogue, too, and raises its own error
            log.warning("the photos cannot be counted: %s", error)
