"""The own data that the documentation speaks of: captions.csv, photos/ and sketches/, written to a folder."""

import csv
from pathlib import Path

from stbir.data.sources.registry import open_source
from tests.data.image_files import write_files

# Words of the documented commands → files below a folder.
NAMES = (r"(?<=table:)captions\.csv", r"(?<= )photos/", r"(?<= )sketches/")


def write_own_data(root: Path, num_photos: int) -> Path:
    """Write synthetic photos, sketches named as their photos, and captions.csv with `filename` and `text`."""
    source, rows = open_source(f"synthetic:{num_photos}"), []
    for number, entry in enumerate(source.entries):
        name = f"{entry.category}/{number:04d}"
        sketches = {f"sketches/{name}_{n}.png": source.read(uri) for n, uri in enumerate(entry.sketches)}
        write_files(root, {f"photos/{name}.png": source.read(entry.photo), **sketches})
        rows.append([f"{name}.png", entry.text])
    with (root / "captions.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["filename", "text"], *rows])
    return root


def own_data_replacements(root: Path) -> dict[str, str]:
    """Regular expression → replacement, to run a documented command on the data below `root`."""
    return {NAMES[0]: f"{root}/captions.csv", NAMES[1]: f"{root}/photos/", NAMES[2]: f"{root}/sketches/"}
