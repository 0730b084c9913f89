"""KIND:PATH → source."""

from collections.abc import Callable

from stbir.data.sources.entry import Source
from stbir.data.sources.manifest_file import open_manifest
from stbir.data.sources.own_data.source import OwnFiles, open_folder, open_table
from stbir.data.sources.qmul import open_qmul
from stbir.data.sources.sketchy import open_sketchy
from stbir.data.sources.synthetic.source import open_synthetic
from stbir.errors import InputError

# Own data: its files are in several places.
OWN_KINDS: dict[str, Callable[[str, OwnFiles], Source]] = {"table": open_table, "folder": open_folder}
# One folder or file with everything.
KINDS: dict[str, Callable[[str], Source]] = {
    "qmul": open_qmul,
    "sketchy": open_sketchy,
    "manifest": open_manifest,
    "synthetic": open_synthetic,
}


def open_source(spec: str, files: OwnFiles | None = None) -> Source:
    """Open `KIND:PATH`, e.g. `table:captions.csv`, `manifest:s3://bucket/shoes` or `synthetic:200`.

    `files` are for the kinds `table` and `folder` only. Raises InputError for an unknown kind, a path that
    cannot be read, and a source without photos.
    """
    kind, _, path = spec.partition(":")
    files = files or OwnFiles()
    if path and kind in OWN_KINDS:
        source = OWN_KINDS[kind](path, files)
    elif path and kind in KINDS:
        if files != OwnFiles():
            raise InputError(f"--photos, --sketches and --columns: not for {kind}; leave them out")
        source = KINDS[kind](path)
    else:
        kinds = ", ".join((*OWN_KINDS, *KINDS))
        raise InputError(f"--source {spec}: write it as KIND:PATH with KIND one of {kinds}")
    if not source.entries:
        raise InputError(f"--source {spec}: contains no photo; check the path")
    return source


def is_own_data(spec: str) -> bool:
    """Whether a source is own data, whose photos need not have a sketch and a caption."""
    return spec.partition(":")[0] in OWN_KINDS
