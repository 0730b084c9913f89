"""A catalogue whose photos may kill or block the process that reads them. Workers import this module, so it
imports no model library."""

import os
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass

import pyarrow as pa

from stbir.catalogue.photo import Part, Photo
from stbir.data.validation import Fault
from tests.data.image_files import png

IDS = [f"{n:02}" for n in range(20)]
DATA = png(1)


@dataclass(frozen=True)
class DangerousCatalogue:
    """Reading `killer` kills the process, reading `sleeper` takes an hour."""

    killer: str | None = None
    sleeper: str | None = None
    fields = pa.schema([])

    def parts(self) -> Iterator[Part]:
        yield Part(IDS[:10], None)
        yield Part(IDS[10:], None)

    def count(self) -> int:
        return len(IDS)

    def identities(self, part: Part) -> list[str | None]:
        return [None] * len(part.ids)

    def read(self, part: Part) -> Iterator[Photo | Fault]:
        for photo_id in part.ids:
            if photo_id == self.killer:
                os.kill(os.getpid(), signal.SIGKILL)
            if photo_id == self.sleeper:
                time.sleep(3600)
            yield Photo(photo_id, "a", (), DATA)
