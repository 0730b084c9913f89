"""The life of a GALLERY: its versions, going back to one, folding in what was added, moving it elsewhere."""

import argparse
from collections.abc import Callable
from typing import Any

from ray_jobs.cli import run
from stbir.config.choices import EXPORT_FORMATS, INDEX_KINDS, INDEX_THRESHOLD


def parser() -> argparse.ArgumentParser:
    """What the command takes."""
    parser = argparse.ArgumentParser("gallery", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND", dest="action")

    def command(name: str, says: str) -> Callable[..., argparse.Action]:
        one = commands.add_parser(name, help=says.rstrip("."), description=says)
        one.add_argument("gallery", metavar="GALLERY", help="made by embed_gallery.py, or to be made")
        return one.add_argument

    command("versions", "All versions that were published, newest first.")
    add = command("name", "Give a version a name.")
    add("name")
    add("version", nargs="?", help="its number or another name (default: what is published)")
    command("rollback", "Let readers see an earlier version again.")("to", metavar="NAME|VERSION")
    add = command("optimize", "Fold in what was added since the index was built, measure, publish.")
    add("--rebuild", action="store_true", help="build the vector index anew")
    _add_index(add)
    add = command("clean", "Remove old versions and the files that only they have.")
    add("--keep", type=int, default=3, help="so many published versions stay (%(default)s)")
    add("--older-than", type=float, default=7, metavar="DAYS", help="remove nothing newer (%(default)s)")
    add = command("export", "Write what is published as plain files.")
    add("out", metavar="OUT", help="where to")
    add("--form", choices=EXPORT_FORMATS, default=EXPORT_FORMATS[0])
    add("--version", help="its name (default: what is published)")
    add = command("import", "Publish vectors that lie in plain files.")
    add("source", metavar="FROM", help="what export wrote, or Parquet with photo_id, category, embedding")
    add("--checkpoint", metavar="URI", help="what made the vectors, where FROM does not say it")
    _add_index(add)
    return parser


def _add_index(add: Callable[..., argparse.Action]) -> None:
    add("--index", choices=INDEX_KINDS, help="another kind than the size suggests")
    add(
        "--index-above",
        type=int,
        default=INDEX_THRESHOLD,
        metavar="PHOTOS",
        help="below: exact (%(default)s)",
    )
    add("--columns", nargs="*", default=[], help="metadata to index for filters, beside category")
    add("--queries", metavar="NPY", help="vectors of real queries to measure recall with, too")


def main(args: argparse.Namespace) -> dict[str, Any]:
    """Runs the action. Lance and Ray load only now, after the arguments have been parsed."""
    from ray_jobs.jobs.gallery import ACTIONS

    return ACTIONS[args.action](args)


if __name__ == "__main__":
    run(main, parser())
