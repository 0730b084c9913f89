"""`python -m tests.cluster.growing GALLERY`: a table grows by 400 photos, slowly enough to be killed."""

import sys
import time

import numpy as np
import pyarrow as pa

from stbir.gallery.existing_rows import known
from stbir.gallery.fingerprint import fingerprint
from stbir.gallery.gallery import schema
from stbir.gallery.table_writer import grow
from stbir.storage.folder import Folder
from stbir.storage.lock import only_writer

DIM = 4
PHOTOS = [f"{n:03}" for n in range(400)]
STEP = 4


def rows(photo_ids: list[str]) -> pa.Table:
    """The same vector for the same photo, in every run."""
    vectors = [np.random.default_rng(int(name)).normal(size=DIM).astype(np.float32) for name in photo_ids]
    columns = [
        pa.array(photo_ids, pa.string()),
        pa.array(["thing"] * len(photo_ids)),
        pa.array(list(vectors), pa.list_(pa.float32(), DIM)),
        pa.array([b""] * len(photo_ids), pa.binary()),
        pa.array([f"content {name}" for name in photo_ids]),
    ]
    return pa.Table.from_arrays(columns, schema=schema(DIM))


def main(uri: str, pause: float) -> None:
    """As the embedding job does it."""
    folder = Folder(uri)
    with only_writer(folder) as lock:
        growth = grow(folder, schema(DIM), "ours")
        there = known(growth.dataset, [])
        for start in range(0, len(PHOTOS), STEP):
            part = PHOTOS[start : start + STEP]
            prints = {name: fingerprint(name, "thing", f"content {name}", []) for name in part}
            before = there.prints_of(part)
            old = [name for name in part if prints[name] in before.get(name, [])]
            there.keep((name, prints[name]) for name in old)
            new = [name for name in part if name not in old]
            if new:
                growth.add(rows(new))
                lock.check()
                growth.commit()
                time.sleep(pause)
        growth.remove(there.to_go())


if __name__ == "__main__":
    main(sys.argv[1], pause=0.02)
