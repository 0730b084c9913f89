"""URIs: one reading of them for every library that opens files.

The part after the scheme is the name itself: `#`, `?`, `%`, `::` and spaces are ordinary characters, as in
the names of a disk or a bucket. Libraries that parse URLs get the name percent-encoded.
"""

import re
from urllib.parse import quote

import fsspec

from stbir.errors import InputError
from stbir.storage.milvus_files import MilvusFileSystem
from stbir.storage.milvus_server import split_uri

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")
_VERSION = "?versionId="
_NOT_IN_A_URL = ("", ".", "..")  # path segments that libraries drop or resolve


def uri_scheme(uri: str) -> str:
    """The scheme of a URI in lower case; `file` for a path."""
    scheme = _SCHEME.match(uri)
    return scheme[1].lower() if scheme else "file"


def is_absolute(uri: str) -> bool:
    """Whether a URI is an absolute path or has a scheme."""
    return uri.startswith("/") or _SCHEME.match(uri) is not None


def normalize_scheme(uri: str) -> str:
    """The URI with its scheme in lower case, as file systems are named."""
    scheme = _SCHEME.match(uri)
    return scheme[0].lower() + uri[scheme.end() :] if scheme else uri


def resolve_uri(uri: str) -> tuple[fsspec.AbstractFileSystem, str]:
    """The file system of a URI, and the path in it. A plain path is local.

    Raises InputError for an unknown scheme, and for a name with `?versionId=`, which s3fs would cut there.
    Unlike in `fsspec.core.url_to_fs`, `::` does not chain file systems.
    """
    scheme, uri = uri_scheme(uri), normalize_scheme(uri)
    if scheme == MilvusFileSystem.protocol:
        return MilvusFileSystem(*split_uri(uri)[:1]), split_uri(uri)[1]
    if scheme in ("s3", "s3a") and _VERSION in uri:
        raise InputError(f"{uri}: {_VERSION} selects a version of an object; choose another name")
    try:
        fs_class = fsspec.get_filesystem_class(scheme)
        fs = fs_class(**fs_class._get_kwargs_from_urls(uri))
    except (ValueError, ImportError) as error:
        raise InputError(f"{uri}: {error}; use a local path or a URI that fsspec can open") from error
    return fs, str(fs_class._strip_protocol(uri))


def quoted_uri(uri: str) -> str:
    """The URI for libraries that parse URLs (Lance, pyarrow, Ray). A local path stays as it is.

    Raises InputError for a name that no URL can express.
    """
    scheme = _SCHEME.match(uri)
    if scheme is None:
        return uri
    path = uri[scheme.end() :]
    for segment in path.split("/"):
        if segment in _NOT_IN_A_URL:
            problem = f"a part of the path is {segment!r}, which a URL cannot express"
            raise InputError(f"{uri}: {problem}; choose another path")
    return scheme[0].lower() + quote(path)
