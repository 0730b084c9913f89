"""The layout of Sketchy (Sangkloy et al., SIGGRAPH 2016) with added caption files:

    256x256/photo/tx_000000000000/<category>/<file>.jpg
    256x256/sketch/tx_000000000000/<category>/<file>-<n>.png
    captions.txt       tx/category/file<TAB>caption

Only the original images (tx_000000000000) are used; the class is the category. A caption file whose name ends
in a split (`captions_test.txt`) sets the split of its photos. Sketchy has no published split of photos.
Photos of a plain `captions.txt` are therefore split 80 / 10 / 10 by a hash of their name, independent of
other photos.
"""

import fnmatch
from collections import Counter, defaultdict

from stbir.data.sources.captions import PATTERNS, caption_files, read_pairs, refuse_two_splits
from stbir.data.sources.entry import Entry, Source, absolute_uri, hash_split, select_images, stem
from stbir.data.sources.layout import describe, match_layout
from stbir.errors import InputError
from stbir.storage.folder import Folder, read_uri

TX = "tx_000000000000"
_PLAIN = "captions.txt"
_PHOTOS = f"256x256/photo/{TX}"
_SKETCHES = f"256x256/sketch/{TX}"


def open_sketchy(path: str) -> Source:
    """The source of the photos below `path` (any fsspec URI). Raises InputError if there are none."""
    folder = Folder(path)
    unused: Counter[str] = Counter()
    listed, others = match_layout(folder, (_PLAIN, *PATTERNS, f"{_SKETCHES}/*/*", f"{_PHOTOS}/*/*"))
    unused.update("{} ({})".format(*describe(other)) for other in others)
    texts, splits = _captions(folder, listed, unused)
    sketches: defaultdict[str, list[str]] = defaultdict(list)
    for name in select_images(fnmatch.filter(listed, f"{_SKETCHES}/*"), unused):
        sketches[_key(name).rpartition("-")[0]].append(name)
    names = select_images(fnmatch.filter(listed, f"{_PHOTOS}/*"), unused)
    if not names:
        raise InputError(f"sketchy:{path}: no photo in {_PHOTOS}/; give the folder that holds 256x256/")
    keys = {_key(name) for name in names}
    unused["sketches without photo"] = sum(len(sketches[key]) for key in sketches.keys() - keys)
    unused["captions without photo"] = len(texts.keys() - keys)
    entries = [_entry(folder, name, sketches[_key(name)], texts, splits) for name in names]
    return Source(entries, read_uri, +unused)


def _captions(
    folder: Folder, listed: list[str], unused: Counter[str]
) -> tuple[dict[str, str], dict[str, str]]:
    """Photo → caption, and photo → split for caption files named after a split, whose captions come first."""
    texts = read_pairs(folder, [_PLAIN] if _PLAIN in listed else [], _key, unused)
    splits: dict[str, str] = {}
    files = caption_files(folder, [name for name in listed if "/" not in name], _key, unused)
    for photo in {photo: None for file in files for photo in file.captions}:
        refuse_two_splits(folder, photo, files)
    for file in files:
        unused["repeated captions"] += len(file.captions.keys() & texts.keys())
        texts = file.captions | texts
        splits = dict.fromkeys(file.captions, file.split) | splits
    return texts, splits


def _key(name: str) -> str:
    """`category/stem` of a photo path."""
    return "/".join((*name.split("/")[-2:-1], stem(name)))


def _entry(
    folder: Folder, photo: str, sketches: list[str], texts: dict[str, str], splits: dict[str, str]
) -> Entry:
    key = _key(photo)
    category = key.partition("/")[0]
    return Entry(
        photo_id=f"sketchy:{key}",
        category=category,
        class_=category,
        split=splits.get(key) or hash_split(key),
        photo=absolute_uri(folder, photo),
        sketches=tuple(absolute_uri(folder, sketch) for sketch in sketches),
        text=texts.get(key),
    )
