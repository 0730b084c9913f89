"""The caption files of STBIR, `[CATEGORY_]SPLIT.txt`: one `photo<TAB>caption` per line."""

import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from stbir.data.sources.entry import SPLITS, read_text
from stbir.errors import InputError
from stbir.storage.folder import Folder

PATTERNS = tuple(f"{prefix}{split}.txt" for split in SPLITS for prefix in ("", "*_"))
_NAME = re.compile(rf"(?:(?P<category>.+)_)?(?P<split>{'|'.join(SPLITS)})\.txt")


@dataclass(frozen=True)
class CaptionFile:
    """A caption file. `category` (or "") and `split` come from its name; `captions` maps photo to caption."""

    name: str
    category: str
    split: str
    captions: dict[str, str]


def caption_files(
    folder: Folder, names: Iterable[str], key: Callable[[str], str], unused: Counter[str]
) -> list[CaptionFile]:
    """The files that are named as caption files, read as `read_pairs` does."""
    return [
        CaptionFile(name, match["category"] or "", match["split"], read_pairs(folder, [name], key, unused))
        for name in names
        if (match := _NAME.fullmatch(name))
    ]


def refuse_two_splits(folder: Folder, photo: str, files: Sequence[CaptionFile], taken: int = 1) -> None:
    """Raises InputError if more files than `taken` have a caption of a photo: its split is unknown, so it may
    be trained on and tested with."""
    names = [file.name for file in files if photo in file.captions]
    if len(names) > taken:
        problem = f"{photo} has a caption in {' and '.join(names)}"
        raise InputError(f"{folder.uri}: {problem}; keep the line in the file of its split only")


def read_pairs(
    folder: Folder,
    names: Iterable[str],
    key: Callable[[str], str],
    unused: Counter[str],
    kind: str = "captions",
) -> dict[str, str]:
    """The `photo<TAB>value` lines of files, as `key(photo)` → value. Raises InputError, naming the line, for
    one without a tab.

    The first line of a key stays; counts the others in `unused`.
    """
    pairs: dict[str, str] = {}
    for name, number, line in _lines(folder, names):
        photo, tab, value = line.partition("\t")
        if not tab:
            raise InputError(f"{folder.uri}/{name}:{number}: no tab; write it as PHOTO<TAB>VALUE")
        unused[f"repeated {kind}"] += key(photo.strip()) in pairs
        pairs.setdefault(key(photo.strip()), value.strip())
    return pairs


def _lines(folder: Folder, names: Iterable[str]) -> Iterator[tuple[str, int, str]]:
    for name in names:
        for number, line in enumerate(read_text(folder, name).split("\n"), start=1):
            if line.strip():
                yield name, number, line
