"""The images of a folder, found by the names under which a table or another file refers to them."""

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

from stbir.data.sources.entry import absolute_uri, select_images, stem
from stbir.storage.folder import Folder
from stbir.storage.listing import list_files

_SEPARATOR = re.compile(r"[_\-. ]+")
AMBIGUOUS = None  # the file of a name that several files have


@dataclass
class ImageFolder:
    """The images below a folder, nested to any depth.

    `names` are paths relative to it, sorted. A file is found by its path, by its name without folders if no
    other file has it, and by either without the image suffix. `unused` counts what is no image, by reason.
    """

    folder: Folder
    names: list[str]
    unused: Counter[str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        self._by_key: dict[str, str | None] = {}
        for key_of in (str, _base, _path_stem, stem):
            pairs = [(key_of(name), name) for name in self.names]
            self._by_key |= _unique(pair for pair in pairs if pair[0] not in self._by_key)

    def find(self, name: str) -> str | None:
        """The file that a path or a name means; None if there is none, or several."""
        path = name.replace("\\", "/").removeprefix("./")
        return self._first(path, _base(path))

    def is_ambiguous(self, name: str) -> bool:
        """Whether several files have a name."""
        return self.find(name) is None and _base(name) in self._by_key

    def find_prefix(self, name: str) -> str | None:
        """The file whose name without suffix is the longest prefix of another file's, up to a separator.

        `a/c1.jpg` is that of `a/c1.png`, `a/c1_2.png` and `c1-2.png`, but not of `a/c12.png`.
        """
        return self._first(*_prefixes(_path_stem(name)), *_prefixes(stem(name)))

    def _first(self, *keys: str) -> str | None:
        """The file of the first key that any file has; None if several have it."""
        return next((self._by_key[key] for key in keys if key in self._by_key), None)

    def uri_of(self, name: str) -> str:
        """The full URI of a file."""
        return absolute_uri(self.folder, name)


def list_images(uri: str, without: str | None = None) -> ImageFolder:
    """The images below `uri`, except those below `without`. Raises InputError if it cannot be listed."""
    unused: Counter[str] = Counter()
    folder, names = Folder(uri), []
    excluded = f"{Folder(without).path}/" if without else None
    for file in list_files(folder):
        if excluded and folder.path_of(file.name).startswith(excluded):
            continue
        if file.problem:
            unused[file.problem] += 1
        else:
            names.append(file.name)
    return ImageFolder(folder, sorted(select_images(names, unused)), +unused)


def _unique(pairs: Iterable[tuple[str, str]]) -> dict[str, str | None]:
    files: dict[str, str | None] = {}
    for key, name in pairs:
        files[key] = AMBIGUOUS if key in files else name
    return files


def _prefixes(name: str) -> list[str]:
    """A path, then what is before each separator of its last part, the longest first."""
    start = name.rfind("/") + 1
    cuts = [match.start() for match in _SEPARATOR.finditer(name, start) if match.start() > start]
    return [name, *(name[:cut] for cut in reversed(cuts))]


def _base(name: str) -> str:
    return name.rpartition("/")[2]


def _path_stem(name: str) -> str:
    folder, slash, base = name.rpartition("/")
    return f"{folder}{slash}{stem(base)}"
