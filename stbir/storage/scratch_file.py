"""Temporary files that end with the object that uses them."""

import tempfile
import weakref
from typing import BinaryIO


def open_scratch_file(owner: object) -> BinaryIO:
    """An empty file without a name in TMPDIR, which is closed and freed with its owner or the process."""
    file: BinaryIO = tempfile.TemporaryFile()  # noqa: SIM115
    weakref.finalize(owner, file.close)
    return file
