"""Versions of files, known without reading them: what changes when a file is written."""

import asyncio
import contextlib
import os
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from fsspec import AbstractFileSystem
from fsspec.asyn import sync
from fsspec.exceptions import FSTimeoutError

from stbir.errors import InputError
from stbir.storage.errors import STORAGE_ERRORS
from stbir.storage.fetch import HTTP_SCHEMES, TIMEOUT_S
from stbir.storage.uri import resolve_uri, uri_scheme

# Clocks of file systems are coarse (FAT: 2 s): a file written so recently may change again and keep its time.
# "Racy git" in git's documentation.
_MIN_AGE_NS = 2_000_000_000
_ETAGS, _TIMES = ("ETag", "etag"), ("mtime", "LastModified", "last_modified")


def stat_version(status: os.stat_result) -> str | None:
    """Size and modification time of a local file; None if it was written within the last 2 s."""
    return _timed_version(status.st_size, status.st_mtime_ns)


def info_version(info: Mapping[str, Any]) -> str | None:
    """Size, and ETag or else modification time, of a file as fsspec describes it; None if unknown."""
    etag = next((info[key] for key in _ETAGS if info.get(key)), None)
    if etag is not None:
        return f"{info['size']} {etag}"
    modified = next((info[key] for key in _TIMES if info.get(key)), None)
    if isinstance(modified, datetime):
        modified = modified.timestamp()
    return _timed_version(info["size"], round(modified * 1e9)) if isinstance(modified, int | float) else None


def read_versions(uris: Sequence[str | None]) -> list[str | None]:
    """The version of each file; None for a missing or unreachable file, and over HTTP, where each would
    need a request that servers may answer as they like."""
    versions: list[str | None] = [None] * len(uris)
    remote: dict[AbstractFileSystem, list[tuple[int, str]]] = defaultdict(list)
    for number, uri in enumerate(uris):
        try:
            if uri is None or (scheme := uri_scheme(uri)) in HTTP_SCHEMES:
                continue
            if scheme == "file":
                versions[number] = stat_version(os.stat(uri.removeprefix("file://")))
            else:
                fs, path = resolve_uri(uri)
                remote[fs].append((number, path))
        except (OSError, ValueError, InputError):  # the error is reported when the photo is read
            continue
    for fs, files in remote.items():
        infos = _read_infos(fs, [path for _, path in files])
        for (number, _), info in zip(files, infos, strict=True):
            versions[number] = info_version(info) if isinstance(info, dict) else None
    return versions


def _timed_version(size: int, modified_ns: int) -> str | None:
    return f"{size} {modified_ns}" if time.time_ns() - modified_ns >= _MIN_AGE_NS else None


def _read_infos(fs: AbstractFileSystem, paths: list[str]) -> list[Any]:
    """A description of each file, None or an exception where there is none; all at once if fs can."""
    fs.invalidate_cache()
    if not fs.async_impl:
        return [_read_info(fs, path) for path in paths]
    try:
        return list(sync(fs.loop, _gather_infos, fs, paths, timeout=TIMEOUT_S))
    except (*STORAGE_ERRORS, FSTimeoutError):
        return [None] * len(paths)


def _read_info(fs: AbstractFileSystem, path: str) -> Any:
    with contextlib.suppress(*STORAGE_ERRORS):
        return fs.info(path)


async def _gather_infos(fs: Any, paths: list[str]) -> list[Any]:
    return await asyncio.gather(*(fs._info(path) for path in paths), return_exceptions=True)
