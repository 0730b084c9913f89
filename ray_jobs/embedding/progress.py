"""The progress of an embedding job on standard error (formatted by tqdm)."""

import shutil
import sys
import time
from collections.abc import Callable

from tqdm import tqdm

from ray_jobs.embedding.pipeline import EmbeddedPart
from stbir.embedding.counts import Counts

_INTERVAL_S = 5.0


class Progress:
    """Prints a line every few seconds; on a terminal, a progress bar."""

    def __init__(
        self, num_photos: int, report: Callable[[dict[str, int], float], None] = lambda *_: None
    ) -> None:
        """`report` receives the counts and the share of time that the encoder waits, with each line."""
        self.counts, self._report = Counts(), report
        self.batch_size = 0
        self.backends = set[str]()  # of the encoder actors
        self._num_photos = num_photos
        self._wait_s = self._encode_s = 0.0
        self._start = self._latest = self._printed = time.monotonic()
        self._num_warmup = 0  # photos of the first part, whose time includes the start of the actors

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
            f"{{n_fmt}} of {self._num_photos} photos{rate}{remaining};"
            f" {self.counts.quarantined} quarantined, {self.counts.failed} failed;"
            f" the encoder waited {self.wait_share:.0%}"
        )
        line = tqdm.format_meter(
            self.counts.total,
            self._num_photos,
            self._latest - self._start,
            ncols=shutil.get_terminal_size().columns if on_terminal else None,
            unit="",
            rate=self.rate,
            bar_format=f"{status} |{{bar}}|" if on_terminal else status,
        )
        print(f"\r{line}\033[K" if on_terminal else f"{line}\n", end="", file=sys.stderr, flush=True)
        self._report(self.counts.by_outcome(), self.wait_share)

    def close(self) -> None:
        """Print the last line."""
        self.refresh()
        if sys.stderr.isatty():
            print(file=sys.stderr)
