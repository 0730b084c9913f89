"""The layout of QMUL's shoes and chairs, with the captions and classes of STBIR. Any subset of:

    trainA/ testA/     sketches   <stem>_<any token>.png
    trainB/ testB/     photos     <stem>.png
    <category>_train.txt, …_val.txt, …_test.txt     photo<TAB>caption
    *_classes.tsv      photo<TAB>class
    *_strokes.npz      the strokes of sketches, see `data.strokes.read_qmul_strokes`

The caption file of a photo decides its split, because trainB holds photos of train and val; captions in the
files of two splits are refused. A photo without a caption has the split of its folder. photo_id is
`<category>:<stem>`; the category is the prefix of the caption file, or else the folder's name.
"""

import base64
import fnmatch
from collections import Counter
from collections.abc import Iterable
from dataclasses import replace

from stbir.data.sources.captions import PATTERNS, CaptionFile, caption_files, read_pairs, refuse_two_splits
from stbir.data.sources.entry import Entry, Source, absolute_uri, select_images, stem
from stbir.data.sources.layout import describe, match_layout
from stbir.data.strokes import read_qmul_strokes
from stbir.errors import InputError
from stbir.storage.folder import Folder, read_uri

# Folder of photos → folder of sketches, and the splits in the order in which captions are looked up.
_FOLDERS = {
    "trainB": ("trainA", ("train", "val", "test")),
    "testB": ("testA", ("test", "val", "train")),
}
_CLASSES, _STROKES = "*_classes.tsv", "*_strokes.npz"
_PATTERNS = ("trainA/*", "trainB/*", "testA/*", "testB/*", _CLASSES, _STROKES, *PATTERNS)


def open_qmul(path: str) -> Source:
    """The source of the photos below `path` (any fsspec URI). Raises InputError if there are none."""
    folder = Folder(path)
    unused: Counter[str] = Counter()
    listed, others = match_layout(folder, _PATTERNS)
    unused.update("{} ({})".format(*describe(other)) for other in others)
    strokes = _read_strokes(folder, fnmatch.filter(listed, _STROKES))
    tables = [name for name in listed if "/" not in name and not fnmatch.fnmatch(name, _STROKES)]
    files = caption_files(folder, tables, stem, unused)
    category = _default_category(folder, files)
    files = [replace(file, category=file.category or category) for file in files]
    classes = read_pairs(folder, fnmatch.filter(tables, _CLASSES), stem, unused, "classes")
    entries: list[Entry] = []
    for photos, (sketches, splits) in _FOLDERS.items():
        names = select_images(fnmatch.filter(listed, f"{photos}/*"), unused)
        drawings = select_images(fnmatch.filter(listed, f"{sketches}/*"), unused)
        matches, num_unmatched = match_sketches(map(stem, names), drawings)
        default = CaptionFile("", category, splits[0], {})
        ordered = sorted(files, key=lambda file: splits.index(file.split))
        for name in names:
            file = next((file for file in ordered if stem(name) in file.captions), default)
            entry = _entry(folder, name, matches[stem(name)], file, classes)
            entries.append(replace(entry, strokes=_match_strokes(matches[stem(name)], strokes)))
        unused["sketches without photo"] += num_unmatched
    if not entries:
        raise InputError(f"qmul:{path}: no photo in trainB/ or testB/; give the folder that holds them")
    folders = {(entry.photo.rpartition("/")[0], stem(entry.photo)) for entry in entries}
    for name, count in Counter(name for _, name in folders).items():
        refuse_two_splits(folder, name, files, taken=count)
    drawn = {stem(sketch) for entry in entries for sketch in entry.sketches}
    unused["strokes without sketch"] = len(strokes.keys() - drawn)
    captioned = {name for file in files for name in file.captions}
    unused["captions without photo"] = len(captioned - {stem(entry.photo) for entry in entries})
    return Source(entries, read_uri, +unused)


def _read_strokes(folder: Folder, names: list[str]) -> dict[str, str]:
    """Sketch stem → strokes, in base64, of all coordinate files. Raises InputError if two have a sketch."""
    strokes: dict[str, str] = {}
    for name in names:
        for key, data in read_qmul_strokes(folder.read(name), f"{folder.uri}/{name}").items():
            if key in strokes:
                raise InputError(f"{folder.uri}/{name}: {key}: another file has its strokes too; remove one")
            strokes[key] = base64.b64encode(data).decode()
    return strokes


def _match_strokes(sketches: list[str], strokes: dict[str, str]) -> tuple[str | None, ...]:
    matches = tuple(strokes.get(stem(sketch)) for sketch in sketches)
    return matches if any(matches) else ()


def match_sketches(stems: Iterable[str], sketches: Iterable[str]) -> tuple[dict[str, list[str]], int]:
    """Photo stem → its sketch files, and the number of sketches without a photo.

    Stems and tokens can contain underscores. A sketch belongs to the longest photo stem that is a prefix of
    its own.
    """
    matches: dict[str, list[str]] = {s: [] for s in stems}
    num_unmatched = 0
    for name in sketches:
        prefix = stem(name)
        while prefix and prefix not in matches:
            prefix = prefix.rpartition("_")[0]
        if prefix:
            matches[prefix].append(name)
        else:
            num_unmatched += 1
    return matches, num_unmatched


def _entry(
    folder: Folder, photo: str, sketches: list[str], file: CaptionFile, classes: dict[str, str]
) -> Entry:
    name = stem(photo)
    return Entry(
        photo_id=f"{file.category}:{name}",
        category=file.category,
        class_=classes.get(name),
        split=file.split,
        photo=absolute_uri(folder, photo),
        sketches=tuple(absolute_uri(folder, sketch) for sketch in sketches),
        text=file.captions.get(name),
    )


def _default_category(folder: Folder, files: list[CaptionFile]) -> str:
    categories = {file.category for file in files if file.category}
    return categories.pop() if len(categories) == 1 else folder.path.rpartition("/")[2]
