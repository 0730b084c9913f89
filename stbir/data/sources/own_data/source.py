"""Own data as a source: a table of captions with folders of photos and sketches, or these folders alone."""

from dataclasses import dataclass

from stbir.data.sources.entry import Source, resolve_files
from stbir.data.sources.own_data.columns import choose_columns, describe_columns, parse_columns
from stbir.data.sources.own_data.image_folder import ImageFolder, list_images
from stbir.data.sources.own_data.notes import describe
from stbir.data.sources.own_data.samples import (
    Samples,
    add_rows,
    add_sketches,
    entries_of,
    reject_unnamed,
    samples_of_folder,
)
from stbir.errors import InputError
from stbir.storage.fetch import fetch_file
from stbir.storage.folder import Folder
from stbir.storage.table_file import SUFFIXES, open_batches


@dataclass(frozen=True)
class OwnFiles:
    """Where own data is, and what its columns mean: the options of `prepare_shards.py`.

    photos, sketches: folders at any URI. columns: `ROLE=COLUMN,…`.
    """

    photos: str | None = None
    sketches: str | None = None
    columns: str = ""


def open_folder(path: str, files: OwnFiles) -> Source:
    """The images below `path`, with the sketches whose names begin with theirs. No captions."""
    if files.photos or files.columns:
        option = "--photos" if files.photos else "--columns"
        raise InputError(f"{option}: a folder has none; leave it out, or give --source table:FILE")
    photos = list_images(path, without=files.sketches)
    samples = samples_of_folder(photos)
    if files.sketches:
        sketches = _list_sketches(samples, files.sketches)
        add_sketches(samples, sketches, photos)
    return _source(samples, (), ())


def open_table(path: str, files: OwnFiles) -> Source:
    """The photos that a table names, and all others below `files.photos`, with their captions and sketches.

    File names of the table are relative to `files.photos` and `files.sketches`, else to the table's folder.
    Raises InputError for a file that is not a table, and for columns that are not there.
    """
    given = parse_columns(files.columns)
    folder, name = _table_file(path)
    photos = list_images(files.photos, without=files.sketches) if files.photos else None
    samples = samples_of_folder(photos) if photos else Samples({})
    sketches = _list_sketches(samples, files.sketches) if files.sketches else None
    with open_batches(folder, name) as (schema, batches):
        roles = choose_columns(schema.names, given, f"{folder.uri}/{name}")
        rows = (
            {role: row[column] for role, column in roles.items()}
            for batch in batches
            for row in batch.to_pylist()
        )
        add_rows(samples, rows, folder, photos, sketches)
        line = describe_columns(schema.names, roles, given)
    if sketches and "sketch" in roles:
        reject_unnamed(samples, sketches)
    elif sketches:
        add_sketches(samples, sketches, photos or ImageFolder(folder, [*samples.by_name]))
    return _source(samples, roles, (line,))


def _table_file(path: str) -> tuple[Folder, str]:
    if not path.endswith(SUFFIXES):
        raise InputError(f"table:{path}: give a file that ends with {', '.join(SUFFIXES)}")
    folder, names = resolve_files(path, SUFFIXES, "")
    if not names:
        raise InputError(f"table:{path}: not found; check the path")
    return folder, names[0]


def _list_sketches(samples: Samples, uri: str) -> ImageFolder:
    sketches = list_images(uri)
    if not sketches.names:
        raise InputError(f"--sketches {uri}: contains no image; check the path")
    samples.unused.update({f"{kind}, among sketches": count for kind, count in sketches.unused.items()})
    return sketches


def _source(samples: Samples, roles: dict[str, str] | tuple[()], lines: tuple[str, ...]) -> Source:
    entries = entries_of(samples)
    return Source(entries, fetch_file, +samples.unused, (*lines, *describe(entries, samples, roles)))
