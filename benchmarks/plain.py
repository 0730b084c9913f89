"""What `embed_gallery` is held against: decoding alone, the model alone, and a plain DataLoader script.

No Ray and no Lance here: the loader forks, and it is to be the script that a user would write.
"""

import os
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch.utils.data import DataLoader, Dataset

from stbir.embedding.embed import encode
from stbir.gallery.fingerprint import content_of
from stbir.gallery.thumbnail import shrunk
from stbir.images import Pixels, open_picture, square_pixels
from stbir.model import checkpoint
from stbir.model.encoders import ImageEncoder

_ENOUGH = 4000  # photos, to know how fast decoding is
_SECONDS_A_SIZE = 2.0
_BATCH = 64
_SCHEMA = pa.schema([("path", pa.string()), ("content", pa.string()), ("thumbnail", pa.binary())])
_SCHEMA = pa.schema([("path", pa.string()), ("content", pa.string()), ("thumbnail", pa.binary())])
Item = tuple[Pixels, bytes, str, str]


def decoding(model: str, files: list[str], size: int, out: Path) -> float:
    """Photos a second of one process a core."""
    cores = os.cpu_count() or 1
    with ProcessPoolExecutor(cores, mp_context=get_context("fork")) as pool:
        list(pool.map(_item_sizes, [(path, size) for path in files[:cores]]))  # they have started
        some = files[:_ENOUGH]
        began = time.perf_counter()
        for _ in pool.map(_item_sizes, [(path, size) for path in some], chunksize=32):
            pass
        return len(some) / (time.perf_counter() - began)


def _item_sizes(what: tuple[str, int]) -> int:
    """Pixels do not travel: this is the ceiling."""
    return _item(*what)[0].size


def _item(path: str, size: int) -> Item:
    data = Path(path).read_bytes()
    picture = open_picture(data)
    pixels = square_pixels(picture, size)
    return pixels, shrunk(picture), content_of(data), path


def encoding(model: str, files: list[str], size: int, out: Path) -> float:
    """Photos a second of the model on tensors that are there, in the best of the usual sizes of a batch."""
    encoder = _loaded(model)
    pixels_B3SS = torch.tensor(np.stack([_item(path, size)[0] for path in files[:256]]))
    sizes = [batch for batch in (16, 32, 64, 128, 256) if batch <= len(pixels_B3SS)]
    return max(_rate(encoder, pixels_B3SS[:batch]) for batch in sizes)


def _rate(encoder: ImageEncoder, pixels_B3SS: torch.Tensor) -> float:
    encode(encoder, pixels_B3SS)
    done, began = 0, time.perf_counter()
    while (spent := time.perf_counter() - began) < _SECONDS_A_SIZE:
        encode(encoder, pixels_B3SS)
        done += len(pixels_B3SS)
    return done / spent


def _loaded(model: str) -> ImageEncoder:
    torch.set_num_threads(os.cpu_count() or 1)
    encoder = checkpoint.load(model, part="photo")
    return encoder.cuda() if torch.cuda.is_available() else encoder


class Photos(Dataset[Item]):
    """What a user would write: files on disk, decoded by the loader's processes."""

    def __init__(self, files: list[str], size: int) -> None:
        self.files, self.size = files, size

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, number: int) -> Item:
        return _item(self.files[number], self.size)


def _collate(items: list[Item]) -> tuple[torch.Tensor, list[bytes], list[str], list[str]]:
    pixels, *others = zip(*items, strict=True)
    thumbnails, contents, paths = map(list, others)
    return torch.from_numpy(np.stack(pixels)), thumbnails, contents, paths


def dataloader(model: str, files: list[str], size: int, out: Path) -> float:
    """The script; photos a second behind the first batch."""
    encoder = _loaded(model)
    loader = DataLoader(
        Photos(files, size),
        batch_size=_BATCH,
        num_workers=os.cpu_count() or 1,
        collate_fn=_collate,
        pin_memory=torch.cuda.is_available(),
        prefetch_factor=4,
    )
    out.mkdir()
    vectors, counted = [], list[float]()
    with pq.ParquetWriter(out / "photos.parquet", _SCHEMA) as writer:
        for pixels, thumbnails, contents, paths in loader:
            vectors.append(encode(encoder, pixels))
            writer.write_table(pa.table([paths, contents, thumbnails], schema=_SCHEMA))
            counted.append(time.perf_counter())
    np.save(out / "vectors.npy", np.concatenate(vectors))
    return (len(files) - _BATCH) / (counted[-1] - counted[0])


SIDES = {"decoding": decoding, "encoding": encoding, "dataloader": dataloader}


def main(side: str, model: str, photos: str, out: str) -> None:
    """Print the rate of a side on the JPEGs of a folder."""
    size = checkpoint.read_recipe(model).model.photo.preprocess.size
    files = sorted(str(path) for path in Path(photos).rglob("*.jpg"))
    print(SIDES[side](model, files, size, Path(out)))


if __name__ == "__main__":
    main(*sys.argv[1:])
