"""Entries of a source, and helpers to list and read its files."""

import hashlib
import re
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from stbir.errors import InputError
from stbir.storage.fetch import DEFAULT_SCHEMES
from stbir.storage.folder import Folder
from stbir.storage.uri import is_absolute, normalize_scheme, uri_scheme

# Of files whose content is not looked at to find out whether they are images.
IMAGE_SUFFIXES = (
    *(".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".webp", ".gif", ".bmp", ".tif", ".tiff"),
    *(".dib", ".apng", ".avif", ".avifs", ".heic", ".heics", ".heif", ".heifs", ".hif"),
    *(".jp2", ".j2k", ".j2c", ".jpc", ".jpf", ".jpx", ".pbm", ".pfm", ".pgm", ".pnm", ".ppm"),
)
SPLITS = ("train", "val", "test")
_SYSTEM_FILE = re.compile(r"(\._|\.ds_store$|thumbs\.db$|desktop\.ini$)", re.IGNORECASE)


@dataclass(frozen=True)
class Entry:
    """One photo with its sketches and metadata. Images are URIs that the source's `read` opens.

    strokes: of each sketch, in base64 of `data.strokes`, None where they are not known; empty: of no sketch.
    """

    photo_id: str
    category: str
    class_: str | None
    split: str
    photo: str
    sketches: tuple[str, ...]
    text: str | None
    text_source: str | None = None
    strokes: tuple[str | None, ...] = ()


@dataclass(frozen=True)
class Source:
    """The entries of a source in a fixed order, and the function that reads its images.

    `read` can run in another process and raises InputError if an image cannot be read. `unused` counts
    files of the source that belong to no photo, by kind. `notes` are lines for the user: how the source was
    understood, and the remedy for what is missing.
    """

    entries: list[Entry]
    read: Callable[[str], bytes]
    unused: Counter[str] = field(default_factory=Counter)
    notes: tuple[str, ...] = ()


def hash_split(key: str) -> str:
    """train, val or test (80 / 10 / 10) by the SHA-256 of a photo's name."""
    tenth = int.from_bytes(hashlib.sha256(key.encode()).digest()[:8], "big") % 10
    return {8: "val", 9: "test"}.get(tenth, "train")


def join_uri(folder: Folder, uri: str) -> str:
    """The full URI of a file that is named relative to a folder. `..` is the folder above, in buckets too."""
    if is_absolute(uri):
        return normalize_scheme(uri)
    if folder.is_local or not {".", ".."}.intersection(uri.split("/")):
        return absolute_uri(folder, uri)
    parts = folder.path.split("/")
    for part in uri.split("/"):
        if part == "..":
            parts = parts[: max(1, len(parts) - 1)]
        elif part != ".":
            parts.append(part)
    return str(folder.fs.unstrip_protocol("/".join(parts)))


def allowed_uri(folder: Folder, uri: str, location: str) -> str:
    """As `join_uri`. Raises InputError, naming `location`, for a scheme that is not in DEFAULT_SCHEMES."""
    full = join_uri(folder, uri)
    if is_absolute(uri) and uri_scheme(full) not in DEFAULT_SCHEMES:
        raise InputError(
            f"{location}: {full}: not one of {', '.join(sorted(DEFAULT_SCHEMES))}; copy the file"
        )
    return full


def absolute_uri(folder: Folder, name: str) -> str:
    """The full URI of a file in a folder, also if the folder was given by a relative path."""
    return str(folder.fs.unstrip_protocol(folder.path_of(name)))


def stem(name: str) -> str:
    """A file name without folder and image suffix. Other dots in the name stay."""
    base = name.rpartition("/")[2]
    for suffix in IMAGE_SUFFIXES:
        if base.lower().endswith(suffix):
            return base[: -len(suffix)]
    return base


def select_images(names: Iterable[str], unused: Counter[str]) -> list[str]:
    """The names of images. Counts other files in `unused`, by reason."""
    images = []
    for name in names:
        if is_system_file(name) or not name.lower().endswith(IMAGE_SUFFIXES):
            unused[f"files without an image suffix ({name_suffix(name)})"] += 1
        elif name != name.encode("utf-8", "ignore").decode():
            unused["names that are not UTF-8"] += 1
        else:
            images.append(name)
    return images


def is_system_file(name: str) -> bool:
    """Whether an operating system made the file, such as `.DS_Store` and the `._x.jpg` of `x.jpg`."""
    return bool(_SYSTEM_FILE.match(name.rpartition("/")[2]))


def name_suffix(name: str) -> str:
    """What a report counts a file by: `.txt` of `a/x.txt`, `.DS_Store`, `no suffix`."""
    base = name.rpartition("/")[2]
    if base.startswith("._"):
        return "._*"
    _, dot, suffix = base.rpartition(".")
    return f".{suffix}" if dot else "no suffix"


def resolve_files(uri: str, suffixes: tuple[str, ...], pattern: str) -> tuple[Folder, list[str]]:
    """A folder and the names of files in it: the file at `uri`, or the sorted matches of `pattern` below it.

    `uri` is a file if it ends with one of `suffixes`. The list is empty if there is no such file.
    """
    if not uri.endswith(suffixes):
        folder = Folder(uri)
        return folder, folder.list_files(pattern)
    parent, _, name = uri.rpartition("/")
    folder = Folder(parent or ("/" if uri.startswith("/") else "."))
    return folder, [name] if folder.exists(name) else []


def read_text(folder: Folder, name: str) -> str:
    """The text of a UTF-8 file. Raises InputError for another encoding."""
    try:
        return folder.read(name).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"{folder.uri}/{name}: not UTF-8 ({error}); save it as UTF-8") from error
