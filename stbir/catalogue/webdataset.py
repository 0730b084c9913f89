"""WebDataset: tar files in which consecutive files with the same name up to the first dot form a sample.

A sample's photo is its only image, or else the one that is named `<key>.<suffix>`. `category` comes from its
JSON, or else from its `.cls`. The other JSON keys are metadata; the first tar file defines the columns.
"""

import json
import tarfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from itertools import groupby
from typing import Any, BinaryIO

import pyarrow as pa

from stbir.catalogue.fields import check_column_name, column_type
from stbir.catalogue.photo import (
    NO_CATEGORY,
    NOT_AN_IMAGE,
    OTHER_IMAGE,
    Part,
    Photo,
    PhotoRef,
    other_files,
    split_into_parts,
)
from stbir.catalogue.reading import read_photos
from stbir.catalogue.tar_file import read_member, read_members
from stbir.data.sources.entry import IMAGE_SUFFIXES, absolute_uri, is_system_file, name_suffix, resolve_files
from stbir.data.validation import Fault
from stbir.errors import InputError
from stbir.storage.file_version import read_versions
from stbir.storage.folder import Folder

_CATEGORY = "category"
_SUFFIX, _PATTERN = ".tar", "*.tar"
_NOT_ADJACENT = "members are not adjacent: write all files of a sample one after the other"


@dataclass(frozen=True)
class Sample:
    """One sample of a tar file: (offset, size) of its image, and its metadata or the reason it has none."""

    key: str
    image: tuple[int, int] | None
    category: str = NO_CATEGORY
    metadata: dict[str, Any] = field(default_factory=dict)
    problem: str | None = None


@dataclass(frozen=True)
class WebDatasetCatalogue:
    """One .tar file, or all of a folder in the order of their names.

    A photo's id is `<tar>/<key>`, since keys often start at 0 in each tar file.
    """

    uri: str

    @cached_property
    def fields(self) -> pa.Schema:
        """The metadata columns. Raises InputError for an invalid name or type."""
        folder, names = self._files
        samples = [sample.metadata for sample in _samples(folder, names[0])]
        keys = list(dict.fromkeys(key for metadata in samples for key in metadata))
        location = f"{folder.uri}/{names[0]}"
        return pa.schema([_field(key, [metadata.get(key) for metadata in samples], location) for key in keys])

    def count(self) -> int:
        """See Catalogue."""
        return sum(1 for _ in self._refs())

    def parts(self) -> Iterator[Part]:
        """See Catalogue. Scans each tar file once."""
        return split_into_parts(self._refs())

    def identities(self, part: Part) -> list[str | None]:
        """See Catalogue. The version of a tar file is that of its members."""
        return [ref.identify(ref.version) for ref in part.location]

    def read(self, part: Part) -> Iterator[Photo | Fault]:
        """See Catalogue. Reads only the bytes of the images."""
        return read_photos(part.location)

    @property
    def _files(self) -> tuple[Folder, list[str]]:
        folder, names = resolve_files(self.uri, (_SUFFIX,), _PATTERN)
        if not names:
            raise InputError(f"{self.uri}: no .tar file found; decompress compressed tar files first")
        return folder, names

    def _refs(self) -> Iterator[PhotoRef]:
        folder, names = self._files
        for name in names:
            uri = absolute_uri(folder, name)
            [version] = read_versions([uri])  # before its members, which may change meanwhile
            for sample in _samples(folder, name):
                photo_id = f"{name.removesuffix(_SUFFIX)}/{sample.key}"
                yield self._ref(sample, photo_id, uri, version)
        if not self.uri.endswith(_SUFFIX):
            yield from other_files(folder, _PATTERN)

    def _ref(self, sample: Sample, photo_id: str, uri: str, version: str | None) -> PhotoRef:
        if sample.image is None or sample.problem is not None:
            return PhotoRef(photo_id, sample.category, uri, problem=sample.problem)
        offset, size = sample.image
        try:
            sample.category.encode()  # JSON strings can be invalid Unicode
            metadata = _cast(sample.metadata, self.fields)
        except (pa.ArrowException, TypeError, ValueError, OverflowError) as error:
            return PhotoRef(photo_id, sample.category, uri, problem=f"metadata does not fit: {error}")
        return PhotoRef(photo_id, sample.category, uri, metadata, size, offset, version=version)


def _cast(metadata: dict[str, Any], fields: pa.Schema) -> tuple[Any, ...]:
    unknown = sorted(metadata.keys() - set(fields.names))
    if unknown:
        raise ValueError(f"{', '.join(unknown)} is in no sample of the first tar file")
    return tuple(pa.scalar(metadata.get(field.name), field.type).as_py() for field in fields)


def _field(key: str, values: list[Any], location: str) -> pa.Field:
    check_column_name(key, f"{location}: key {key}")
    try:
        kind = pa.array(values).type
    except (pa.ArrowException, ValueError, OverflowError) as error:
        raise InputError(f"{location}: key {key}: {error}; give it one type") from error
    return pa.field(key, column_type(kind, f"{location}: key {key}"))


def _samples(folder: Folder, name: str) -> Iterator[Sample]:
    """The samples of a tar file, and one with a problem for each image that no sample takes."""
    system_files: list[str] = []
    keys: set[str] = set()
    with folder.open(name) as file:
        members = _without_system_files(read_members(file, f"{folder.uri}/{name}"), system_files)
        for key, group in groupby(members, key=lambda member: _split_name(member.name)[0]):
            sample, others = _sample(key, file, list(group))
            yield Sample(key, None, problem=_NOT_ADJACENT) if key in keys else sample
            keys.add(key)
            yield from (Sample(other, None, problem=_problem(OTHER_IMAGE, other)) for other in others)
    yield from (Sample(each, None, problem=_problem(NOT_AN_IMAGE, each)) for each in system_files)


def _without_system_files(
    members: Iterable[tarfile.TarInfo], system_files: list[str]
) -> Iterator[tarfile.TarInfo]:
    """The members; adds the names of others, which can lie between those of a sample, to `system_files`."""
    for member in members:
        if is_system_file(member.name):
            system_files.append(member.name)
        else:
            yield member


def _problem(reason: str, name: str) -> str:
    return f"{reason}: {name_suffix(name)}"


def _split_name(name: str) -> tuple[str, str]:
    """Key and extension: `a/b.x.jpg` → `a/b`, `x.jpg`."""
    head, slash, base = name.rpartition("/")
    stem, _, extension = base.partition(".")
    return f"{head}{slash}{stem}", extension.lower()


def _sample(key: str, file: BinaryIO, members: list[tarfile.TarInfo]) -> tuple[Sample, list[str]]:
    """The sample, and the names of the images that it does not take."""
    images = [member for member in members if member.name.lower().endswith(IMAGE_SUFFIXES)]
    location: tuple[int, int] | None = None
    others: list[str] = []
    try:
        image = _select_image(images)
        others = [member.name for member in images if member is not image]
        location = image.offset_data, image.size
        json_data, cls_data = (_content(file, members, extension) for extension in ("json", "cls"))
        metadata = _parse_json(json_data)
        category = str(metadata.pop(_CATEGORY, None) or _parse_cls(cls_data) or NO_CATEGORY)
    except InputError as error:  # a bad sample does not affect the others
        return Sample(key, location, problem=str(error)), others
    return Sample(key, location, category, metadata), others


def _select_image(images: list[tarfile.TarInfo]) -> tarfile.TarInfo:
    """The only image of a sample, or the only one that is named `<key>.<suffix>`."""
    plain = [member for member in images if "." not in _split_name(member.name)[1]]
    if not images:
        raise InputError("no picture in the sample")
    if len(images) > 1 and len(plain) != 1:
        raise InputError(f"several pictures in the sample: {', '.join(member.name for member in images)}")
    [image] = images if len(images) == 1 else plain
    if not image.isreg() or image.issparse():
        raise InputError(f"picture is not a plain file: {image.name} is a link or sparse")
    return image


def _content(file: BinaryIO, members: list[tarfile.TarInfo], extension: str) -> bytes:
    matches = [member for member in members if _split_name(member.name)[1] == extension]
    if len(matches) > 1:
        raise InputError(f"several .{extension} in the sample: {', '.join(each.name for each in matches)}")
    return read_member(file, matches[0]) if matches and matches[0].isreg() else b""


def _parse_json(data: bytes) -> dict[str, Any]:
    try:
        metadata = json.loads(data or b"{}")
    except (ValueError, RecursionError) as error:
        raise InputError(f".json cannot be read: {error}") from error
    if not isinstance(metadata, dict):
        raise InputError(".json cannot be read: not an object")
    return metadata


def _parse_cls(data: bytes) -> str:
    try:
        return data.decode().strip()
    except UnicodeDecodeError as error:
        raise InputError(f".cls cannot be read: {error}") from error
