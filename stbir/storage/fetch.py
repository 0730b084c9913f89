"""Bytes of a file at a URI, within limits of time and size. A local path or key is never parsed as a URL."""

import asyncio
import ipaddress
import os
import stat
from collections.abc import Set
from typing import Any
from urllib.parse import urljoin, urlsplit

import aiohttp
from fsspec.asyn import sync
from fsspec.exceptions import FSTimeoutError

from stbir.errors import InputError
from stbir.storage.errors import STORAGE_ERRORS, storage_error
from stbir.storage.retry import with_retries
from stbir.storage.uri import resolve_uri, uri_scheme

MAX_BYTES = 64 * 2**20  # of a photo whose size is not listed
# For all attempts. 16 threads need 800 s for a part of 256 photos that never answer, which is less than a job
# waits for a part.
TIMEOUT_S = 50.0
DEFAULT_SCHEMES = frozenset({"file", "s3", "gs", "https"})
HTTP_SCHEMES = ("http", "https")
_MAX_REDIRECTS = 5
_CHUNK_BYTES = 2**16


def fetch_file(uri: str) -> bytes:
    """A whole file. Raises InputError, naming it, with the cause if that is an error of the storage.

    Other reasons are more than MAX_BYTES, and a redirect that is not allowed.
    """
    try:
        data = with_retries(lambda: fetch(uri, 0, MAX_BYTES + 1, DEFAULT_SCHEMES, TIMEOUT_S), TIMEOUT_S)
    except InputError as error:
        raise InputError(f"{uri}: {error}; give another file") from error.__cause__
    except (*STORAGE_ERRORS, aiohttp.ClientError) as error:
        raise storage_error(uri, error) from error
    if len(data) > MAX_BYTES:
        raise InputError(f"{uri}: larger than {MAX_BYTES // 2**20} MiB; shrink it")
    return data


def fetch(uri: str, start: int, end: int, schemes: Set[str], timeout_s: float) -> bytes:
    """The bytes of a file from `start` to before `end`; fewer if the file is shorter.

    A redirect must lead to a public address and to one of `schemes`. Raises InputError for another one,
    TimeoutError if the bytes do not come in time, and otherwise the storage's error.
    """
    scheme = uri_scheme(uri)
    if scheme == "file":
        return _read_local(uri.removeprefix("file://"), start, end)
    fs, path = resolve_uri(uri)
    try:
        if scheme in HTTP_SCHEMES:
            return bytes(sync(fs.loop, _get, fs, uri, end, schemes, timeout=timeout_s)[start:])
        limits = {"timeout": timeout_s} if fs.async_impl else {}
        return bytes(fs.cat_file(path, start=start, end=end, **limits))
    except FSTimeoutError as error:
        raise TimeoutError("no complete answer in time") from error


def _read_local(path: str, start: int, end: int) -> bytes:
    # To open a named pipe would block.
    if not stat.S_ISREG(os.stat(path).st_mode):
        raise IsADirectoryError(f"{path} is not a file")
    with open(path, "rb") as file:
        file.seek(start)
        return file.read(end - start)


async def _get(fs: Any, url: str, max_bytes: int, schemes: Set[str]) -> bytes:
    """GET with redirects, each of which is checked. Stops to read after `max_bytes`."""
    session: aiohttp.ClientSession = await fs.set_session()
    for _ in range(_MAX_REDIRECTS + 1):
        async with session.get(fs.encode_url(url), allow_redirects=False) as response:
            location = response.headers.get("Location")
            if location is None or response.status // 100 != 3:
                return await _read_body(response, max_bytes)
            url = urljoin(url, location)
        await _check_redirect(url, schemes)
    raise InputError(f"more than {_MAX_REDIRECTS} redirects")


async def _read_body(response: aiohttp.ClientResponse, max_bytes: int) -> bytes:
    if response.status == 404:
        raise FileNotFoundError(str(response.url))
    response.raise_for_status()
    data = bytearray()
    async for chunk in response.content.iter_chunked(_CHUNK_BYTES):
        data += chunk
        if len(data) >= max_bytes:
            break
    return bytes(data[:max_bytes])


async def _check_redirect(url: str, schemes: Set[str]) -> None:
    """A server must not make the job read other services of its own network."""
    parts = urlsplit(url)
    if parts.scheme not in HTTP_SCHEMES or parts.scheme not in schemes or not parts.hostname:
        raise InputError(f"redirect to {url}: not one of {', '.join(sorted(schemes & {*HTTP_SCHEMES}))}")
    addresses = await asyncio.get_running_loop().getaddrinfo(parts.hostname, None)
    if not all(_is_public(str(address[4][0])) for address in addresses):
        raise InputError(f"redirect to {url}: a private address")


def _is_public(address: str) -> bool:
    ip = ipaddress.ip_address(address.partition("%")[0])
    mapped = ip.ipv4_mapped if isinstance(ip, ipaddress.IPv6Address) else None
    return (mapped or ip).is_global
