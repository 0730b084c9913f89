"""Make training data of a CSV with the columns photo, sketch and text, one row per sketch.

python examples/own_csv.py TRIPLES.csv

writes manifest.jsonl beside it; paths are relative to the CSV. A tenth of the photos is for validation,
and a tenth for testing. Then: python ray_jobs/prepare_shards.py --source manifest:FOLDER --out out/shards
"""

import csv
import json
import sys
import zlib
from pathlib import Path
from typing import Any


def split_of(photo: str) -> str:
    """The same for a photo in every run, whatever other photos there are."""
    return {0: "test", 1: "val"}.get(zlib.crc32(photo.encode()) % 10, "train")


def main(csv_path: str) -> None:
    photos: dict[str, dict[str, Any]] = {}
    with Path(csv_path).open(newline="") as file:
        for row in csv.DictReader(file):
            name = row["photo"]
            entry = {"id": name, "split": split_of(name), "category": "photo", "photo": name}
            photos.setdefault(name, {**entry, "sketches": [], "text": row["text"]})
            photos[name]["sketches"].append(row["sketch"])
    out = Path(csv_path).with_name("manifest.jsonl")
    out.write_text("".join(f"{json.dumps(photo)}\n" for photo in photos.values()))
    print(f"{len(photos)} photos in {out}")


if __name__ == "__main__":
    main(*sys.argv[1:])
