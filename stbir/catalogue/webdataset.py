"""WebDataset: tar files in which the files of a sample follow one another, named alike up to the first dot.

A sample's picture is its photo. `category` comes from its JSON or, without that, its `.cls`; the JSON's other
keys are metadata. Which columns there are, the first tar file says.
"""

import json
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from itertools import groupby
from typing import IO, Any

import pyarrow as pa

from stbir.catalogue.fields import check_name, simple_type
from stbir.catalogue.files import files_of
from stbir.catalogue.folder import SUFFIXES
from stbir.catalogue.photo import NO_CATEGORY, Listed, Part, Photo, in_parts
from stbir.catalogue.reading import read_listed
from stbir.data.sources.entry import absolute
from stbir.data.validation import Fault
from stbir.errors import InputError
from stbir.storage.folder import Folder

_CATEGORY = "category"


@dataclass(frozen=True)
class Sample:
    """One sample of a tar file: where its picture lies there, and what is said of it, or why that cannot be
    read."""

    key: str
    picture: tuple[int, int] | None
    category: str = NO_CATEGORY
    facts: dict[str, Any] = field(default_factory=dict)
    problem: str | None = None


@dataclass(frozen=True)
class WebDatasetCatalogue:
    """One .tar file, or all of a folder in the order of their names. A photo's id is `<tar>/<key>`: keys are
    often counted from nought in each tar file."""

    uri: str

    @cached_property
    def fields(self) -> pa.Schema:
        """As in Catalogue. Raises InputError for keys or values that cannot be kept."""
        folder, names = self._files
        facts = [sample.facts for sample in _samples(folder, names[0])]
        keys = list(dict.fromkeys(key for each in facts for key in each))
        where = f"{folder.uri}/{names[0]}"
        return pa.schema([_field(key, [each.get(key) for each in facts], where) for key in keys])

    def count(self) -> int:
        """As in Catalogue."""
        return sum(1 for _ in self._listed())

    def parts(self) -> Iterator[Part]:
        """As in Catalogue. Each tar file is gone through once for its index."""
        return in_parts(self._listed())

    def read(self, part: Part) -> Iterator[Photo | Fault]:
        """As in Catalogue; only the pictures' bytes are asked for."""
        return read_listed(part.place)

    @property
    def _files(self) -> tuple[Folder, list[str]]:
        folder, names = files_of(self.uri, (".tar",), "*.tar")
        if not names:
            raise InputError(f"{self.uri}: no .tar file there; compressed ones are to be unpacked first")
        return folder, names

    def _listed(self) -> Iterator[Listed]:
        folder, names = self._files
        for name in names:
            uri = absolute(folder, name)
            for sample in _samples(folder, name):
                yield self._entry(sample, f"{name[: -len('.tar')]}/{sample.key}", uri)

    def _entry(self, sample: Sample, photo_id: str, uri: str) -> Listed:
        if sample.picture is None:
            return Listed(photo_id, sample.category, None, problem="no picture in the sample")
        if sample.problem is not None:
            return Listed(photo_id, sample.category, uri, problem=sample.problem)
        offset, size = sample.picture
        try:
            sample.category.encode()  # JSON can say what is no Unicode
            facts = _facts(sample.facts, self.fields)
        except (pa.ArrowException, TypeError, ValueError, OverflowError) as error:
            return Listed(photo_id, sample.category, uri, problem=f"metadata does not fit: {error}")
        return Listed(photo_id, sample.category, uri, facts, size, offset)


def _facts(given: dict[str, Any], fields: pa.Schema) -> tuple[Any, ...]:
    unknown = sorted(given.keys() - set(fields.names))
    if unknown:
        raise ValueError(f"{', '.join(unknown)} is in no sample of the first tar file")
    return tuple(pa.scalar(given.get(field.name), field.type).as_py() for field in fields)


def _field(key: str, values: list[Any], where: str) -> pa.Field:
    check_name(key, f"{where}: key {key}")
    try:
        kind = pa.array(values).type
    except (pa.ArrowException, ValueError, OverflowError) as error:
        raise InputError(f"{where}: key {key}: {error}; give it one type") from error
    return pa.field(key, simple_type(kind, f"{where}: key {key}"))


def _samples(folder: Folder, name: str) -> Iterator[Sample]:
    with folder.open(name) as file:
        try:
            with tarfile.open(fileobj=file, mode="r:") as tar:
                members = (member for member in tar if member.isfile())
                for key, of_key in groupby(members, key=lambda member: _split(member.name)[0]):
                    yield _sample(key, tar, list(of_key))
        except tarfile.TarError as error:
            raise InputError(f"{folder.uri}/{name}: not a whole tar file ({error})") from error


def _split(name: str) -> tuple[str, str]:
    """Key and extension: `a/b.x.jpg` → `a/b`, `x.jpg`."""
    head, slash, base = name.rpartition("/")
    stem, _, extension = base.partition(".")
    return f"{head}{slash}{stem}", extension.lower()


def _sample(key: str, tar: tarfile.TarFile, members: list[tarfile.TarInfo]) -> Sample:
    by_extension = {_split(member.name)[1]: member for member in members}
    pictures = [m for extension, m in by_extension.items() if f".{extension}".endswith(SUFFIXES)]
    picture = (pictures[0].offset_data, pictures[0].size) if pictures else None
    said = [_content(tar, by_extension.get(extension)) for extension in ("json", "cls")]
    try:
        facts = _json(said[0])
        category = str(facts.pop(_CATEGORY, None) or _text(said[1]) or NO_CATEGORY)
    except InputError as error:  # this sample's alone: the others are as good as before
        return Sample(key, picture, problem=str(error))
    return Sample(key, picture, category, facts)


def _content(tar: tarfile.TarFile, member: tarfile.TarInfo | None) -> bytes:
    file: IO[bytes] | None = tar.extractfile(member) if member is not None else None
    return b"" if file is None else file.read()


def _json(data: bytes) -> dict[str, Any]:
    try:
        facts = json.loads(data or b"{}")
    except (ValueError, RecursionError) as error:
        raise InputError(f".json cannot be read: {error}") from error
    if not isinstance(facts, dict):
        raise InputError(".json cannot be read: it is no object")
    return facts


def _text(data: bytes) -> str:
    try:
        return data.decode().strip()
    except UnicodeDecodeError as error:
        raise InputError(f".cls cannot be read: {error}") from error
