"""Manage the versions of a GALLERY: list, tag, roll back, optimize, prune, export, import and copy."""

if __name__ == "__main__":  # before the imports below, which take a while
    from ray_jobs.interrupts import handle_interrupts

    handle_interrupts()

import argparse
from typing import Any

from ray_jobs.cli import add_index_threshold, add_max_removed, add_retired, run
from stbir.config.choices import EXPORT_FORMATS, INDEX_KINDS
from stbir.errors import InputError

RETIRED = {"clean": "prune", "name": "tag"}  # subcommands of version 0.1: old → new


def parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser("gallery", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND", dest="action")

    def command(name: str, description: str) -> argparse.ArgumentParser:
        subparser = commands.add_parser(name, help=description.rstrip("."), description=description)
        subparser.add_argument("gallery", metavar="GALLERY", help="made by embed_gallery.py or `import`")
        return subparser

    command("versions", "List all published versions, newest first.")
    add = command("tag", "Tag a version.").add_argument
    add("tag")
    add("version", nargs="?", help="its number or another tag (default: the published version)")
    command("rollback", "Publish an earlier version.").add_argument("to", metavar="TAG|VERSION")
    optimize = command("optimize", "Compact the table, index new rows, measure the recall, and publish.")
    optimize.add_argument("--rebuild", action="store_true", help="rebuild the vector index")
    _add_index_options(optimize)
    add = command("prune", "Delete old versions and the files that only they use.").add_argument
    add("--keep", type=int, default=3, help="number of published versions to keep (%(default)s)")
    add("--older-than", type=float, default=7, metavar="DAYS", help="keep younger versions (%(default)s)")
    export = command("export", "Write a version as plain files.")
    export.add_argument("out", metavar="OUT", help="output folder")
    export.add_argument("--format", choices=EXPORT_FORMATS, default=EXPORT_FORMATS[0])
    export.add_argument("--version", help="its tag (default: the published version)")
    add_retired(export, {"--form": "--format"})
    import_ = command("import", "Publish vectors from plain files.")
    source = "an export, or Parquet files with photo_id, category, embedding"
    import_.add_argument("source", metavar="FROM", help=source)
    checkpoint = "the checkpoint of the vectors, if FROM has no manifest"
    import_.add_argument("--checkpoint", metavar="URI", help=checkpoint)
    add_max_removed(import_)
    _add_index_options(import_)
    copy = command("copy", "Publish the same rows in another gallery, which may be in another store.")
    copy.add_argument("to", metavar="TO", help="a folder, or milvus://HOST:PORT/NAME")
    add_max_removed(copy)
    _add_index_options(copy)
    for name in RETIRED:  # takes any arguments, also those that look like options
        retired = commands.add_parser(name, prefix_chars="\0", add_help=False)
        retired.add_argument("arguments", nargs="*")
    return parser


def _add_index_options(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--index", choices=INDEX_KINDS, help="kind of a Lance index (default: by the number of photos)")
    add_index_threshold(parser)
    add("--columns", nargs="*", default=[], help="metadata columns to index for filters, besides category")
    add("--queries", metavar="NPY", help="vectors of real queries, to measure the recall with")


def main(args: argparse.Namespace) -> dict[str, Any]:
    """Run the subcommand. Lance and Ray are imported only here, after the arguments are parsed."""
    if args.action in RETIRED:
        raise InputError(f"{args.action} is now {RETIRED[args.action]}")
    from ray_jobs.jobs.gallery import ACTIONS

    return ACTIONS[args.action](args)


if __name__ == "__main__":
    run(main, parser())
