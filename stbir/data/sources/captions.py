"""The caption files of STBIR, `[CATEGORY_]SPLIT.txt`: one `photo<TAB>caption` per line."""

import re
from dataclasses import dataclass

from stbir.data.sources.entry import SPLITS, read_text
from stbir.errors import InputError
from stbir.storage.folder import Folder

_NAME = re.compile(rf"(?:(?P<category>.+)_)?(?P<split>{'|'.join(SPLITS)})\.txt")


@dataclass(frozen=True)
class CaptionFile:
    """A caption file. `category` (or "") and `split` come from its name; `captions` maps photo to caption."""

    category: str
    split: str
    captions: dict[str, str]


def caption_files(folder: Folder) -> list[CaptionFile]:
    """The files of a folder that are named as caption files."""
    names = folder.list_files("*.txt")
    return [
        CaptionFile(match["category"] or "", match["split"], read_pairs(folder, name))
        for name in names
        if (match := _NAME.fullmatch(name))
    ]


def read_pairs(folder: Folder, name: str) -> dict[str, str]:
    """The `key<TAB>value` lines of a file. Raises InputError, naming the line, for one without a tab."""
    pairs: dict[str, str] = {}
    for number, line in enumerate(read_text(folder, name).split("\n"), start=1):
        if not line.strip():
            continue
        key, tab, value = line.partition("\t")
        if not tab:
            raise InputError(f"{folder.uri}/{name}:{number}: no tab; write it as PHOTO<TAB>VALUE")
        pairs[key.strip()] = value.strip()
    return pairs
