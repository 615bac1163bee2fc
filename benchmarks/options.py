"""The options that the benchmarks share."""

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path

from scripts import command


def add_options(parser: argparse.ArgumentParser, names: Sequence, metavar: str) -> None:
    """Take --rounds, --only (some of `names`), --json, --plot, --markdown and --quick."""
    add = parser.add_argument
    add(
        "--rounds",
        type=command.number(least=1),
        default=3,
        help="measurements of each case (default: %(default)s)",
    )
    add(
        "--only",
        nargs="+",
        choices=names,
        metavar=metavar,
        default=names,
        help=f"measure only these of {', '.join(names)}",
    )
    add("--json", type=output_file(), metavar="FILE", help="write all figures to this file as JSON")
    add(
        "--plot",
        type=output_file(".png", ".svg", ".pdf"),
        metavar="FILE",
        help="draw a plot and save it as .png, .svg or .pdf",
    )
    add("--markdown", action="store_true", help="print the table as Markdown")
    add(
        "--quick",
        action="store_true",
        help="use a tiny network and little data, to see that it works: the figures mean nothing",
    )


def output_file(*suffixes: str) -> Callable:
    """Return an argparse type: the path of a file to write, with one of `suffixes` if given."""

    def convert(text):
        path = Path(text)
        if path.is_dir():
            raise argparse.ArgumentTypeError(f"{text} is a folder: name a file in it")
        if suffixes and path.suffix not in suffixes:
            raise argparse.ArgumentTypeError(f"{text}: name a {' or '.join(suffixes)} file")
        return path

    return convert
