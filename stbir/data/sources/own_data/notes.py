"""What the user is told about own data: how it was understood, what is missing, and the recipe that works."""

from collections import Counter
from collections.abc import Collection

from stbir.data.sources.entry import Entry
from stbir.data.sources.own_data.samples import (
    LONE_SKETCH,
    LOST_SKETCH,
    NO_FILE,
    NO_PHOTO,
    SEVERAL_PHOTOS,
    Samples,
)

REMEDIES = {
    NO_FILE: "fill the column of files",
    NO_PHOTO: "check --photos, and that the column of files has paths or names below it",
    SEVERAL_PHOTOS: "write paths relative to --photos",
    LONE_SKETCH: "name a sketch as its photo (c1.jpg: c1.png, c1_2.png), or give --columns sketch=COLUMN",
    LOST_SKETCH: "check --sketches, and that the column of sketches has paths or names below it",
    "further values of caption": "a photo has one caption, the first; join them in one cell to use all",
}


def describe(entries: list[Entry], samples: Samples, roles: Collection[str]) -> tuple[str, ...]:
    """One line for each choice, then one for each kind of input that was not used, then the recipe."""
    missing = [
        f"{samples.unused[kind]} {kind}{_example(samples, kind)}: {remedy}"
        for kind, remedy in REMEDIES.items()
        if samples.unused[kind]
    ]
    return (_classes(entries, roles), _splits(entries, roles), *missing, *_parts(entries))


def _example(samples: Samples, kind: str) -> str:
    return f" (first: {samples.examples[kind]})" if kind in samples.examples else ""


def _classes(entries: list[Entry], roles: Collection[str]) -> str:
    num_categories = len({entry.category for entry in entries})
    if "class" in roles:
        other = "its category" if num_categories > 1 else "none"
        return f"classes: of the column; a photo without one has {other}"
    if num_categories > 1:
        return f"classes: the {num_categories} categories, as no column has classes"
    return (
        "classes: none, as there is one category; recipes with a class term then use clusters of image"
        " features, or leave the term out"
    )


def _splits(entries: list[Entry], roles: Collection[str]) -> str:
    counts = Counter(entry.split for entry in entries)
    listed = ", ".join(f"{count} {split}" for split, count in sorted(counts.items()))
    rule = "of the column, others by a hash of the id" if "split" in roles else "by a hash of the id"
    return f"splits: {rule}: {listed}"


def _parts(entries: list[Entry]) -> list[str]:
    """How many photos have which part, and what can be done with them."""
    captions = sum(entry.text is not None for entry in entries)
    sketches = sum(bool(entry.sketches) for entry in entries)
    both = sum(entry.text is not None and bool(entry.sketches) for entry in entries)
    counts = f"{len(entries)} photos: {captions} with caption, {sketches} with sketch, {both} with both"
    return [f"{counts}; {_recipe(captions, sketches, both)}"]


def _recipe(captions: int, sketches: int, both: int) -> str:
    if both:
        rest = f"; finetune_text trains on all {captions} with a caption" if captions > both else ""
        return f"next: train.py --recipe finetune (photos with both){rest}"
    if captions:
        return "next: train.py --recipe finetune_text, which needs no sketches; for finetune give --sketches"
    if sketches:
        return "next: caption.py writes captions, then train.py --recipe finetune"
    return (
        "next: init_checkpoint.py and embed_gallery.py, which need no training; to train, give captions"
        " (--source table:FILE, or caption.py) and --sketches"
    )
