"""Baselines of `embed.py`: decoding only, the model only, and a DataLoader script.

No Ray and no Lance here: the loader forks, and this is the script that a user would write.
"""

import os
import sys
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch.utils.data import DataLoader, Dataset

from stbir.embedding.embed import encode
from stbir.gallery.fingerprint import content_hash
from stbir.gallery.thumbnail import encode_thumbnail
from stbir.images import Pixels, open_image, resize_photo
from stbir.model import checkpoint
from stbir.model.encoders import ImageEncoder

_SAMPLE_PHOTOS = 4000
_SECONDS_PER_SIZE = 2.0
_BATCH = 64
_SCHEMA = pa.schema([("path", pa.string()), ("content", pa.string()), ("thumbnail", pa.binary())])
Item = tuple[Pixels, bytes, str, str]


def measure_decoding(model: str, files: list[str], size: int, out: Path) -> float:
    """Decoded photos per second, one process per core."""
    cores = os.cpu_count() or 1
    with ProcessPoolExecutor(cores, mp_context=get_context("fork")) as pool:
        list(pool.map(_item_sizes, [(path, size) for path in files[:cores]]))  # start the processes
        sample = files[:_SAMPLE_PHOTOS]
        start = time.perf_counter()
        for _ in pool.map(_item_sizes, [(path, size) for path in sample], chunksize=32):
            pass
        return len(sample) / (time.perf_counter() - start)


def _item_sizes(arguments: tuple[str, int]) -> int:
    """Decode, but return no pixels: an upper limit."""
    return _item(*arguments)[0].size


def _item(path: str, size: int, is_scaled: bool = True) -> Item:
    data = Path(path).read_bytes()
    image = open_image(data, side=size if is_scaled else None)
    pixels = resize_photo(image, size)
    return pixels, encode_thumbnail(image), content_hash(data), path


def measure_encoding(model: str, files: list[str], size: int, out: Path) -> float:
    """Encoded photos per second on resident tensors, at the best batch size."""
    encoder = _loaded(model)
    pixels_B3SS = torch.tensor(np.stack([_item(path, size)[0] for path in files[:256]]))
    sizes = [batch for batch in (16, 32, 64, 128, 256) if batch <= len(pixels_B3SS)]
    return max(_rate(encoder, pixels_B3SS[:batch]) for batch in sizes)


def _rate(encoder: ImageEncoder, pixels_B3SS: torch.Tensor) -> float:
    encode(encoder, pixels_B3SS)
    done, start = 0, time.perf_counter()
    while (elapsed := time.perf_counter() - start) < _SECONDS_PER_SIZE:
        encode(encoder, pixels_B3SS)
        done += len(pixels_B3SS)
    return done / elapsed


def _loaded(model: str) -> ImageEncoder:
    torch.set_num_threads(os.cpu_count() or 1)
    encoder = checkpoint.load(model, part="photo")
    return encoder.cuda() if torch.cuda.is_available() else encoder


class Photos(Dataset[Item]):
    """Files on disk, decoded by the loader's processes."""

    def __init__(self, files: list[str], size: int, is_scaled: bool) -> None:
        self.files, self.size, self.is_scaled = files, size, is_scaled

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, number: int) -> Item:
        return _item(self.files[number], self.size, self.is_scaled)


def _collate(items: list[Item]) -> tuple[torch.Tensor, list[bytes], list[str], list[str]]:
    pixels, *others = zip(*items, strict=True)
    thumbnails, contents, paths = map(list, others)
    return torch.from_numpy(np.stack(pixels)), thumbnails, contents, paths


def measure_dataloader(model: str, files: list[str], size: int, out: Path, is_scaled: bool = False) -> float:
    """Photos per second of the DataLoader script, without the first batch.

    `is_scaled`: JPEGs are decoded at a fraction of their size, which a script gets only if it asks for it.
    """
    encoder = _loaded(model)
    loader = DataLoader(
        Photos(files, size, is_scaled),
        batch_size=_BATCH,
        num_workers=os.cpu_count() or 1,
        collate_fn=_collate,
        pin_memory=torch.cuda.is_available(),
        prefetch_factor=4,
    )
    out.mkdir(exist_ok=True)
    vectors, batch_times = [], list[float]()
    with pq.ParquetWriter(out / "photos.parquet", _SCHEMA) as writer:
        for pixels, thumbnails, contents, paths in loader:
            vectors.append(encode(encoder, pixels))
            writer.write_table(pa.table([paths, contents, thumbnails], schema=_SCHEMA))
            batch_times.append(time.perf_counter())
    np.save(out / "vectors.npy", np.concatenate(vectors))
    return (len(files) - _BATCH) / (batch_times[-1] - batch_times[0])


SIDES: dict[str, Callable[[str, list[str], int, Path], float]] = {
    "decoding": measure_decoding,
    "encoding": measure_encoding,
    "scaled_dataloader": partial(measure_dataloader, is_scaled=True),
    "dataloader": measure_dataloader,
}


def main(side: str, model: str, photos: str, out: str) -> None:
    """Print the rate of a variant on the JPEGs of a folder."""
    size = checkpoint.read_recipe(model).model.photo.preprocess.size
    files = sorted(str(path) for path in Path(photos).rglob("*.jpg"))
    print(SIDES[side](model, files, size, Path(out)))


if __name__ == "__main__":
    main(*sys.argv[1:])
