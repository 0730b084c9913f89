"""The layout of QMUL's shoes and chairs, with the captions and classes of STBIR. Any subset of:

    trainA/ testA/     sketches   <stem>_<any token>.png
    trainB/ testB/     photos     <stem>.png
    <category>_train.txt, …_val.txt, …_test.txt     photo<TAB>caption
    *_classes.tsv      photo<TAB>class

The caption file that lists a photo decides its split (trainB holds photos of train and of val); a photo
in none is of its folder's. photo_id is `<category>:<stem>`, the category being what the caption file's
name begins with, else the folder's name.
"""

from collections import Counter
from collections.abc import Iterable
from dataclasses import replace

from stbir.data.sources.captions import CaptionFile, caption_files, read_pairs
from stbir.data.sources.entry import Entry, Source, absolute, pictures, stem
from stbir.errors import InputError
from stbir.storage.folder import Folder, read_uri

# Folder of photos → its folder of sketches, and the splits whose captions it looks up, its own first.
_SIDES = {
    "trainB": ("trainA", ("train", "val", "test")),
    "testB": ("testA", ("test", "val", "train")),
}


def open_qmul(path: str) -> Source:
    """List the photos below `path` (any fsspec URI). Raises InputError where there are none."""
    folder = Folder(path)
    captions = [_by_stem(file) for file in caption_files(folder)]
    classes = {
        stem(k): v for name in folder.names("*_classes.tsv") for k, v in read_pairs(folder, name).items()
    }
    entries: list[Entry] = []
    unused: Counter[str] = Counter()
    for photos, (sketches, splits) in _SIDES.items():
        names = pictures(folder, f"{photos}/*")
        drawn, orphans = match_sketches((stem(n) for n in names), pictures(folder, f"{sketches}/*"))
        ordered = sorted(captions, key=lambda file: splits.index(file.split))
        entries += [_entry(folder, name, drawn[stem(name)], ordered, splits[0], classes) for name in names]
        unused["sketches without photo"] += orphans
    if not entries:
        raise InputError(f"qmul:{path}: no photo in trainB/ or testB/; give the folder that holds them")
    unused["captions without photo"] = _unmatched(captions, entries)
    return Source(entries, read_uri, +unused)


def match_sketches(stems: Iterable[str], sketches: Iterable[str]) -> tuple[dict[str, list[str]], int]:
    """Photo stem → its sketch files, and how many sketches belong to none.

    Stems contain underscores, and so may the token after them: a sketch is of the longest photo stem
    that it begins with.
    """
    found: dict[str, list[str]] = {s: [] for s in stems}
    orphans = 0
    for name in sketches:
        prefix = stem(name)
        while prefix and prefix not in found:
            prefix = prefix.rpartition("_")[0]
        if prefix:
            found[prefix].append(name)
        else:
            orphans += 1
    return found, orphans


def _entry(
    folder: Folder,
    photo: str,
    sketches: list[str],
    captions: list[CaptionFile],
    split: str,
    classes: dict[str, str],
) -> Entry:
    name = stem(photo)
    file, text = _caption(captions, name)
    category = _category(folder, captions, file)
    return Entry(
        photo_id=f"{category}:{name}",
        category=category,
        class_=classes.get(name),
        split=file.split if file else split,
        photo=absolute(folder, photo),
        sketches=tuple(absolute(folder, sketch) for sketch in sketches),
        text=text,
    )


def _caption(captions: list[CaptionFile], name: str) -> tuple[CaptionFile | None, str | None]:
    for file in captions:
        if name in file.captions:
            return file, file.captions[name]
    return None, None


def _by_stem(file: CaptionFile) -> CaptionFile:
    return replace(file, captions={stem(photo): text for photo, text in file.captions.items()})


def _category(folder: Folder, captions: list[CaptionFile], file: CaptionFile | None) -> str:
    if file and file.prefix:
        return file.prefix
    prefixes = {other.prefix for other in captions if other.prefix}
    return prefixes.pop() if len(prefixes) == 1 else folder.path.rpartition("/")[2]


def _unmatched(captions: list[CaptionFile], entries: list[Entry]) -> int:
    there = {stem(entry.photo) for entry in entries}
    return len({name for file in captions for name in file.captions} - there)
