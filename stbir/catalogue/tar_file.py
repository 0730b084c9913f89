"""Members of a tar file, with proof that the list is complete.

`tarfile` ends its iteration without an error at a damaged header and at the end of a truncated file.
"""

import tarfile
from collections.abc import Iterator
from typing import BinaryIO

from stbir.errors import InputError

_END_MARKER_BYTES = 2 * tarfile.BLOCKSIZE  # two blocks of zeros
_CHUNK_BYTES = 2**20


def read_members(file: BinaryIO, location: str) -> Iterator[tarfile.TarInfo]:
    """The members of an uncompressed tar file, without folders.

    Raises InputError, naming `location` and the offset in bytes, for a damaged or truncated file, at the
    latest after the last member.
    """
    offset = 0
    try:
        with tarfile.open(fileobj=file, mode="r:") as tar:
            while (member := tar.next()) is not None:
                tar.members.clear()  # type: ignore[attr-defined]  # tarfile keeps all members in memory
                if not member.isdir():
                    yield member
                offset = tar.offset
            offset = tar.offset
    except (tarfile.TarError, ValueError, OverflowError) as error:
        raise _damaged(location, offset, str(error)) from error
    _check_end(file, offset, location)


def read_member(file: BinaryIO, member: tarfile.TarInfo) -> bytes:
    """The content of a member."""
    file.seek(member.offset_data)
    return file.read(member.size)


def _check_end(file: BinaryIO, offset: int, location: str) -> None:
    """Check that only the end marker and zeros begin at `offset`."""
    file.seek(offset)
    marker = file.read(_END_MARKER_BYTES)
    if marker.strip(b"\0"):
        raise _damaged(location, offset, "no valid header")
    if len(marker) < _END_MARKER_BYTES:
        raise _damaged(location, offset, "it ends without an end marker")
    while chunk := file.read(_CHUNK_BYTES):
        if chunk.strip(b"\0"):
            raise _damaged(location, offset, "data follows the end marker")


def _damaged(location: str, offset: int, reason: str) -> InputError:
    return InputError(f"{location}: not a complete tar file: {reason} at byte {offset}; write the file again")
