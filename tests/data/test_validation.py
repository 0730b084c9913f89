"""Validation of source entries: what enters the shards, and the reason of what does not."""

import pytest
from PIL import Image

from stbir.data.sources.entry import Entry
from stbir.data.validation import Fault, validate_entry
from stbir.images import encode_png
from tests.data.image_files import drawing, png, sketch_png

FILES = {
    "photo.png": png(255),  # a photo of one colour is valid
    "sketch.png": sketch_png(),
    "blank.png": png(255),
    "transparent.png": png((0, 0, 0, 0), mode="RGBA"),
    "chalk.png": encode_png(drawing((0, 0, 0, 0), (255,) * 4, mode="RGBA")),
    "wide.png": encode_png(Image.new("L", (300, 1), 255)),
}


def validate(*sketches: str) -> tuple[list[bytes] | None, list[Fault]]:
    entry = Entry("x:1", "x", None, "train", "photo.png", sketches, "a cup")
    row, faults = validate_entry(entry, FILES.__getitem__, ("sketch", "text"))
    return row and row["sketches"], faults


def test_sketch_without_a_stroke_is_a_fault_of_the_sketch() -> None:
    sketches, faults = validate("sketch.png", "blank.png", "transparent.png", "chalk.png", "wide.png")
    assert sketches == [FILES["sketch.png"], FILES["chalk.png"]]
    assert [(fault.reason, fault.file) for fault in faults] == [
        ("sketch has no stroke", name) for name in ("blank.png", "transparent.png", "wide.png")
    ]
    assert all(fault.is_sketch_fault for fault in faults)


@pytest.mark.parametrize("name", ["blank.png", "transparent.png"])
def test_photo_whose_only_sketch_has_no_stroke_is_left_out(name: str) -> None:
    sketches, faults = validate(name)
    assert sketches is None
    assert [fault.reason for fault in faults] == ["sketch has no stroke", "no readable sketch"]
