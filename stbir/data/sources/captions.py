"""Caption files as published with STBIR: one `photo<TAB>caption` a line, named `[PREFIX_]SPLIT.txt`."""

import re
from collections.abc import Iterator
from dataclasses import dataclass

from stbir.data.sources.entry import SPLITS
from stbir.errors import InputError
from stbir.storage.folder import Folder

_NAME = re.compile(rf"(?:(?P<prefix>.+)_)?(?P<split>{'|'.join(SPLITS)})\.txt")


@dataclass(frozen=True)
class CaptionFile:
    """A caption file: which split its photos are of, what its name begins with, photo → caption."""

    name: str
    prefix: str | None
    split: str
    captions: dict[str, str]


def caption_files(folder: Folder) -> list[CaptionFile]:
    """The caption files of a folder whose names end in a split."""
    found = ((name, _NAME.fullmatch(name)) for name in folder.names("*.txt"))
    return [
        CaptionFile(name, match["prefix"], match["split"], read_pairs(folder, name))
        for name, match in found
        if match
    ]


def read_pairs(folder: Folder, name: str) -> dict[str, str]:
    """A file of `key<TAB>value` lines. Raises InputError, naming the line, where there is no tab."""
    return dict(_pairs(_decode(folder, name), f"{folder.uri}/{name}"))


def _decode(folder: Folder, name: str) -> str:
    try:
        return folder.read(name).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"{folder.uri}/{name}: not UTF-8 ({error}); save it as UTF-8") from error


def _pairs(text: str, where: str) -> Iterator[tuple[str, str]]:
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        key, tab, value = line.partition("\t")
        if not tab:
            raise InputError(f"{where}:{number}: no tab; write it as PHOTO<TAB>VALUE")
        yield key.strip(), value.strip()
