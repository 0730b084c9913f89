"""A JSON Lines file that lists photos, one object per line with the keys

    id, split, category, photo, sketches (a list), text     and optionally class, text_source

Paths are relative to the file, or full URIs. `text` can be null, `sketches` empty. Other keys are ignored.
"""

from typing import Annotated

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass

from stbir.data.sources.entry import Entry, Source, allowed_uri, read_text, resolve_files
from stbir.errors import InputError
from stbir.storage.fetch import fetch_file
from stbir.storage.folder import Folder

NAME = "manifest.jsonl"
NonEmptyStr = Annotated[str, Field(min_length=1)]


@dataclass(frozen=True, config=ConfigDict(extra="ignore"))
class ManifestLine:
    """One line of the file."""

    id: NonEmptyStr
    split: NonEmptyStr
    category: NonEmptyStr
    photo: NonEmptyStr
    sketches: list[NonEmptyStr]
    text: str | None
    class_: str | None = Field(default=None, alias="class")
    text_source: str | None = None


def open_manifest(path: str) -> Source:
    """The source of `path`, a JSON Lines file or a folder that holds a manifest.jsonl.

    Raises InputError, naming file, line and key, for a line that does not have the format above, and for a
    URI whose scheme is not one of DEFAULT_SCHEMES.
    """
    folder, names = resolve_files(path, (".jsonl", ".json"), NAME)
    if not names:
        raise InputError(f"manifest:{path}: not found; give a .jsonl file, or a folder that holds {NAME}")
    entries = [
        _entry(folder, line, f"{folder.uri}/{names[0]}:{number}")
        for number, line in enumerate(read_text(folder, names[0]).split("\n"), start=1)
        if line.strip()
    ]
    return Source(entries, fetch_file)


def _parse(line: str, location: str) -> ManifestLine:
    try:
        return TypeAdapter(ManifestLine).validate_json(line)
    except ValidationError as error:
        detail = error.errors()[0]
        key = ".".join(str(part) for part in detail["loc"]) or "line"
        raise InputError(f"{location}: {key}: {detail['msg']}") from error


def _entry(folder: Folder, text: str, location: str) -> Entry:
    line = _parse(text, location)
    return Entry(
        photo_id=line.id,
        category=line.category,
        class_=line.class_,
        split=line.split,
        photo=allowed_uri(folder, line.photo, location),
        sketches=tuple(allowed_uri(folder, sketch, location) for sketch in line.sketches),
        text=line.text,
        text_source=line.text_source,
    )
