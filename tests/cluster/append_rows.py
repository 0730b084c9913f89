"""`python -m tests.cluster.append_rows GALLERY` appends 200 rows to a table, slowly enough to be killed."""

import sys
import time

from stbir.storage.folder import Folder
from stbir.storage.lock import writer_lock
from tests.gallery.test_table_writer import run_job

PHOTOS = {f"{n:03}": (f"content {n}", 0.0) for n in range(200)}


def main(uri: str, pause_s: float) -> None:
    """Write the rows as the embedding job does."""
    folder = Folder(uri)
    with writer_lock(folder) as lock:
        run_job(folder, PHOTOS, before_commit=lambda: (lock.check(), time.sleep(pause_s)))


if __name__ == "__main__":
    main(sys.argv[1], pause_s=0.02)
