"""A JSON Lines file that lists photos: one object a line with

    id, split, category, photo, sketches (a list), text     and, if wanted, class, text_source

Paths are relative to the file, or full URIs. `text` may be null, `sketches` empty. Other keys are ignored.
"""

import re
from typing import Annotated

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass

from stbir.data.sources.entry import Entry, Source, absolute
from stbir.errors import InputError
from stbir.storage.folder import Folder, read_uri

NAME = "manifest.jsonl"
_FULL = re.compile(r"/|[a-z][a-z0-9+.-]*://")
Word = Annotated[str, Field(min_length=1)]


@dataclass(frozen=True, config=ConfigDict(extra="ignore"))
class Line:
    """One line of the file."""

    id: Word
    split: Word
    category: Word
    photo: Word
    sketches: list[Word]
    text: str | None
    class_: str | None = Field(default=None, alias="class")
    text_source: str | None = None


def open_manifest(path: str) -> Source:
    """List the photos of `path`, a JSON Lines file or a folder that holds a manifest.jsonl.

    Raises InputError that names file, line and key for what is not as described above.
    """
    folder, name = _find(path)
    try:
        lines = folder.read(name).decode("utf-8-sig").split("\n")
    except UnicodeDecodeError as error:
        raise InputError(f"{folder.uri}/{name}: not UTF-8 ({error}); save it as UTF-8") from error
    entries = [
        _entry(folder, _parse(line, f"{folder.uri}/{name}:{number}"))
        for number, line in enumerate(lines, start=1)
        if line.strip()
    ]
    return Source(entries, read_uri)


def _find(path: str) -> tuple[Folder, str]:
    if path.endswith((".jsonl", ".json")):
        parent, _, name = path.rpartition("/")
        folder = Folder(parent or ("/" if path.startswith("/") else "."))
    else:
        folder, name = Folder(path), NAME
    if not folder.exists(name):
        raise InputError(f"manifest:{path}: no {name} there; give the file, or the folder that holds {NAME}")
    return folder, name


def _parse(line: str, where: str) -> Line:
    try:
        return TypeAdapter(Line).validate_json(line)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"]) or "line"
        raise InputError(f"{where}: {key}: {first['msg']}") from error


def _entry(folder: Folder, line: Line) -> Entry:
    return Entry(
        photo_id=line.id,
        category=line.category,
        class_=line.class_,
        split=line.split,
        photo=_resolve(folder, line.photo),
        sketches=tuple(_resolve(folder, sketch) for sketch in line.sketches),
        text=line.text,
        text_source=line.text_source,
    )


def _resolve(folder: Folder, name: str) -> str:
    return name if _FULL.match(name) else absolute(folder, name)
