"""The files of a folder that has a fixed layout, and the reason for each that does not belong to it."""

from collections.abc import Sequence
from dataclasses import replace
from fnmatch import fnmatchcase

from stbir.data.sources.entry import name_suffix
from stbir.storage.folder import Folder
from stbir.storage.listing import NOT_SEARCHED, ListedFile, list_files

OUTSIDE = "file outside the layout"


def match_layout(folder: Folder, patterns: Sequence[str]) -> tuple[list[str], list[ListedFile]]:
    """The sorted names of the files that match a pattern, and all others, each with its `problem`.

    `*` in a pattern is a part of one level. Folders that no pattern reaches are among the others; what is in
    them is not listed. A folder that does not exist has no files.
    """
    if not folder.exists():
        return [], []
    matches, others = [], []
    levels = [pattern.split("/") for pattern in patterns]
    for file in list_files(folder, lambda name: any(_reaches(each, name) for each in levels)):
        is_match = any(_fits(each, file.name) for each in levels)
        if file.problem is None and is_match:
            matches.append(file.name)
        else:
            others.append(replace(file, problem=file.problem or OUTSIDE))
    return sorted(matches), others


def describe(other: ListedFile) -> tuple[str, str]:
    """Reason and kind of a file of `match_layout` that was not taken: what a report counts it by."""
    return other.problem or "", other.name if other.problem == NOT_SEARCHED else name_suffix(other.name)


def _reaches(pattern: list[str], folder: str) -> bool:
    """Whether a pattern can match a file below a folder."""
    parts = folder.split("/")
    return len(parts) < len(pattern) and _fits(pattern[: len(parts)], folder)


def _fits(pattern: list[str], name: str) -> bool:
    parts = name.split("/")
    return len(parts) == len(pattern) and all(map(fnmatchcase, parts, pattern))
