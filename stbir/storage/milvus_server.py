"""A connection to a Milvus server, whose errors are InputErrors of one line."""

import functools
import logging
import re
import time
from typing import Any

from stbir.errors import InputError

SCHEME = "milvus"
FORM = "milvus://HOST:PORT/NAME, with letters, digits and single underscores in NAME"
_URI = re.compile(
    rf"{SCHEME}://(?P<address>[^/@]+:\d+)/(?P<path>(?P<name>[A-Za-z][A-Za-z0-9_]*)(/.*)?)", re.S
)
_CONNECT_TIMEOUT_S = 5.0
_TIMEOUT_S = 60.0  # of an operation on rows; without one, pymilvus repeats it for an hour
_CREATION_S = 1.0  # of a collection
_JOB_TIMEOUT_S = 24 * 3600.0
_JOBS = ("create_index", "flush", "load_collection")  # these wait for all rows


class MilvusServer:
    """A connection that all threads of a process share."""

    def __init__(self, address: str, token: str, secure: bool) -> None:
        """`address`: HOST:PORT. Raises InputError if no server answers there within seconds."""
        try:
            from grpc import RpcError
            from pymilvus import MilvusClient, MilvusException
        except ImportError as error:
            remedy = "install it with: pip install 'stbir[milvus]'"
            raise InputError(f"{SCHEME}://{address}: needs pymilvus; {remedy}") from error
        # It logs each error with a traceback; the errors are raised, too.
        logging.getLogger("pymilvus").setLevel(logging.CRITICAL)
        self.address, self._errors = address, (MilvusException, RpcError)  # the latter for a timeout
        uri = f"{'https' if secure else 'http'}://{address}"
        try:
            self._client = MilvusClient(uri, token=token, timeout=_CONNECT_TIMEOUT_S)
        except self._errors as error:
            remedy = "check host, port and network, that Milvus runs there, and FSSPEC_MILVUS_TOKEN"
            raise InputError(f"{SCHEME}://{address}: no Milvus server answers; {remedy}") from error

    def call(self, operation: str, *args: Any, **options: Any) -> Any:
        """The result of a method of `pymilvus.MilvusClient`. Raises InputError that names the server."""
        timeout = _JOB_TIMEOUT_S if operation in _JOBS else _TIMEOUT_S
        try:
            return getattr(self._client, operation)(*args, timeout=timeout, **options)
        except self._errors as error:
            details = error.details() if hasattr(error, "details") else error.message
            reason = " ".join(str(details).split())[:200]
            remedy = "check that the server runs, and its log"
            raise InputError(f"{SCHEME}://{self.address}: {operation} failed ({reason}); {remedy}") from error

    def create_collection(self, name: str, fields: list[dict[str, Any]]) -> None:
        """Create a collection whose fields have these arguments of `add_field`. Raises InputError if the name
        is in use."""
        from pymilvus import DataType, MilvusClient

        schema = MilvusClient.create_schema(auto_id=False)
        for field in fields:
            schema.add_field(**{**field, "datatype": DataType[field["datatype"]]})
        self.call("create_collection", name, schema=schema)

    def create_index(self, collection: str, field: str, kind: str, metric: str = "", **build: int) -> None:
        """Build an index and wait for it. `metric`: of vectors; `build`: the parameters of this kind."""
        from pymilvus import MilvusClient

        params = MilvusClient.prepare_index_params()
        options: dict[str, Any] = {"metric_type": metric} if metric else {}
        # Nested, since milvus-lite 3.2 reads no other form.
        options |= {"params": {"params": build}} if build else {}
        params.add_index(field, index_type=kind, index_name=field, **options)
        self.call("create_index", collection, params)

    def has_collection(self, name: str) -> bool:
        """Whether there is a collection of that name."""
        return bool(self.call("has_collection", name))

    def is_created_by_another(self, name: str) -> bool:
        """Whether a collection whose creation was refused exists, now or within a second: milvus-lite refuses
        the second of two creations before the first has ended."""
        deadline_s = time.monotonic() + _CREATION_S
        while not (exists := self.has_collection(name)) and time.monotonic() < deadline_s:
            time.sleep(0.05)
        return exists


@functools.lru_cache(maxsize=16)
def connect(address: str, token: str, secure: bool) -> MilvusServer:
    """The connection of this process. Raises InputError as MilvusServer does."""
    return MilvusServer(address, token, secure)


def split_uri(uri: str) -> tuple[str, str]:
    """The address HOST:PORT, and the path that starts with the name of the gallery. Raises InputError for a
    URI of another form; so do credentials in it, which would show in logs."""
    match = _URI.fullmatch(uri)
    if match is None or "__" in match["name"] or match["name"].endswith("_"):
        shown = re.sub(r"//.*@", "//…@", uri, flags=re.S)  # a password may contain a slash
        raise InputError(f"{shown}: not the URI of a Milvus gallery; use {FORM} (token: FSSPEC_MILVUS_TOKEN)")
    return match["address"], match["path"].rstrip("/")


def quoted(text: str) -> str:
    """A text in Milvus's filter language."""
    for character, escape in (("\\", "\\\\"), ('"', '\\"'), ("\n", "\\n"), ("\r", "\\r")):
        text = text.replace(character, escape)
    return f'"{text}"'
