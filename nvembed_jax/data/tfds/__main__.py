"""`python -m nvembed_jax.data.tfds`: lists, builds and tabulates the public sets."""

from __future__ import annotations

import argparse
import sys

from nvembed_jax.data.tfds.registry import all_sets
from nvembed_jax.data.tfds.table import markdown_tables


def main(arguments: list[str] | None = None) -> int:
    """Runs one command; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m nvembed_jax.data.tfds", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("list", help="name, kind and origin of every set")
    commands.add_parser("table", help="the tables of docs/data.md")
    build = commands.add_parser("build", help="build sets as array_record files")
    build.add_argument("names", nargs="+", metavar="NAME")
    build.add_argument("--data-dir", help="where sets are built (~/tensorflow_datasets)")
    build.add_argument(
        "--origin-dir", help="a folder with the origin's files, or in the task layout"
    )
    options = parser.parse_args(arguments)
    if options.command == "list":
        for public in all_sets().values():
            print(f"{public.name}\t{public.kind}\t{public.origin}")
    elif options.command == "table":
        print(markdown_tables())
    else:
        return _build(options)
    return 0


def _build(options: argparse.Namespace) -> int:
    from nvembed_jax.data.tfds.builder import build

    for name in options.names:
        try:
            print(build(name, data_dir=options.data_dir, origin_dir=options.origin_dir))
        except (OSError, ValueError) as error:
            print(f"error: {error}", file=sys.stderr)
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
