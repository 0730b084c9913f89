"""The files that a catalogue consists of: one by its name, or all of a kind in a folder."""

from stbir.storage.folder import Folder


def files_of(uri: str, alone: tuple[str, ...], pattern: str) -> tuple[Folder, list[str]]:
    """A file whose name ends as one of `alone`, or the sorted files of a folder that match `pattern`; []
    where there is none."""
    if not uri.endswith(alone):
        folder = Folder(uri)
        return folder, folder.names(pattern)
    parent, _, name = uri.rpartition("/")
    folder = Folder(parent or ("/" if uri.startswith("/") else "."))
    return folder, [name] if folder.exists(name) else []
