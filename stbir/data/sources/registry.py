"""KIND:PATH → source."""

from collections.abc import Callable

from stbir.data.sources.entry import Source
from stbir.data.sources.manifest_file import open_manifest
from stbir.data.sources.qmul import open_qmul
from stbir.data.sources.sketchy import open_sketchy
from stbir.data.sources.synthetic.source import open_synthetic
from stbir.errors import InputError

KINDS: dict[str, Callable[[str], Source]] = {
    "qmul": open_qmul,
    "sketchy": open_sketchy,
    "manifest": open_manifest,
    "synthetic": open_synthetic,
}


def open_source(spec: str) -> Source:
    """Open `KIND:PATH`, e.g. `qmul:data/ChairV2`, `manifest:s3://bucket/shoes` or `synthetic:200`.

    Raises InputError for an unknown kind, a path that cannot be read, and a source without photos.
    """
    kind, colon, path = spec.partition(":")
    if not colon or not path or kind not in KINDS:
        raise InputError(f"--source {spec}: write it as KIND:PATH with KIND one of {', '.join(KINDS)}")
    source = KINDS[kind](path)
    if not source.entries:
        raise InputError(f"--source {spec}: contains no photo; check the path")
    return source
