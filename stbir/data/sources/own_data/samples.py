"""Photos with what rows of a table and a folder of sketches say about them."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from stbir.data.sources.entry import Entry, allowed_uri, hash_split
from stbir.data.sources.own_data.image_folder import ImageFolder
from stbir.storage.folder import Folder

NO_CATEGORY = "unknown"
NO_FILE = "rows without a file name"
NO_PHOTO = "rows whose photo is missing"
SEVERAL_PHOTOS = "rows whose file name several photos have"
LONE_SKETCH = "sketches without photo"
LOST_SKETCH = "sketches that a row names and that are missing"


@dataclass
class Sample:
    """A photo. `values` are those of the roles in `own_data.columns`, the first of each."""

    uri: str
    category: str
    values: dict[str, str] = field(default_factory=dict)
    sketches: list[str] = field(default_factory=list)

    def add(self, row: dict[str, str], unused: Counter[str]) -> None:
        """Take the values of a row; counts those that differ from an earlier one's."""
        for role, value in row.items():
            unused[f"further values of {role}"] += self.values.setdefault(role, value) != value


@dataclass
class Samples:
    """The photos of a folder or a table by name, and what was not used of the input, by kind.

    `examples` has the first name of each kind.
    """

    by_name: dict[str, Sample]
    unused: Counter[str] = field(default_factory=Counter)
    examples: dict[str, str] = field(default_factory=dict)

    def reject(self, kind: str, name: str) -> None:
        """Count what is not used."""
        self.unused[kind] += 1
        self.examples.setdefault(kind, name)


def samples_of_folder(photos: ImageFolder) -> Samples:
    """One sample per image. The category is the first folder below the root, or the root's name."""
    root = photos.folder.path.rpartition("/")[2]
    categories = {name: name.partition("/")[0] if "/" in name else root for name in photos.names}
    by_name = {name: Sample(photos.uri_of(name), categories[name]) for name in photos.names}
    return Samples(by_name, Counter(photos.unused))


def add_rows(
    samples: Samples,
    rows: Iterable[dict[str, Any]],
    table: Folder,
    photos: ImageFolder | None,
    sketches: ImageFolder | None,
) -> None:
    """Add the rows of a table, by role. Without `photos`, each new file is a photo, relative to the table."""
    for number, row in enumerate(rows, start=1):
        drawings = _names(row.pop("sketch", None))
        values = {role: str(value).strip() for role, value in row.items() if value is not None}
        values = {role: value for role, value in values.items() if value}
        file, location = values.pop("file", ""), f"{table.uri}: row {number}"
        sample = _sample(samples, file, table, photos, location)
        if sample is not None:
            sample.add(values, samples.unused)
            uris = (_sketch_uri(samples, name, table, sketches, location) for name in drawings)
            sample.sketches += [uri for uri in uris if uri and uri not in sample.sketches]


def _names(value: Any) -> list[str]:
    """The file names of a cell: a list, one name, or none."""
    names = value if isinstance(value, list) else [value]
    return [str(name).strip() for name in names if name is not None and str(name).strip()]


def _sample(
    samples: Samples, file: str, table: Folder, photos: ImageFolder | None, location: str
) -> Sample | None:
    if not file:
        samples.reject(NO_FILE, location)
        return None
    if photos is None:
        uri = allowed_uri(table, file, location)
        return samples.by_name.setdefault(file, Sample(uri, NO_CATEGORY))
    name = photos.find(file)
    if name is None:
        samples.reject(SEVERAL_PHOTOS if photos.is_ambiguous(file) else NO_PHOTO, file)
        return None
    return samples.by_name[name]


def _sketch_uri(
    samples: Samples, name: str, table: Folder, sketches: ImageFolder | None, location: str
) -> str | None:
    if sketches is None:
        return allowed_uri(table, name, location)
    found = sketches.find(name)
    if found is None:
        samples.reject(LOST_SKETCH, name)
        return None
    return sketches.uri_of(found)


def add_sketches(samples: Samples, sketches: ImageFolder, photos: ImageFolder) -> None:
    """Add each sketch to the photo whose name begins its own."""
    for name in sketches.names:
        photo = photos.find_prefix(name)
        if photo is None:
            samples.reject(LONE_SKETCH, name)
        else:
            samples.by_name[photo].sketches.append(sketches.uri_of(name))


def reject_unnamed(samples: Samples, sketches: ImageFolder) -> None:
    """Count the sketches of a folder that no row names, where a column of the table names them."""
    named = {uri for sample in samples.by_name.values() for uri in sample.sketches}
    for name in sketches.names:
        if sketches.uri_of(name) not in named:
            samples.reject(LONE_SKETCH, name)


def entries_of(samples: Samples) -> list[Entry]:
    """The samples as entries. Photos without a class have their category, if there are several."""
    photos = samples.by_name
    category = {name: each.values.get("category", each.category) for name, each in photos.items()}
    has_categories = len(set(category.values())) > 1
    return [
        Entry(
            photo_id=(photo_id := each.values.get("id", name)),
            category=category[name],
            class_=each.values.get("class") or (category[name] if has_categories else None),
            split=each.values.get("split") or hash_split(photo_id),
            photo=each.uri,
            sketches=tuple(each.sketches),
            text=each.values.get("caption"),
        )
        for name, each in photos.items()
    ]
