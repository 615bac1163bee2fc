"""The options that the benchmarks share."""

from collections.abc import Sequence

from scripts import command


def add_options(parser: command.Parser, names: Sequence, metavar: str) -> None:
    """Take --rounds, --only (some of `names`), --json, --plot, --markdown and --quick."""
    add = parser.add_argument
    parser.add_count("--rounds", 3, "measurements of each case")
    words = f"measure only these of {', '.join(names)}"
    add("--only", nargs="+", choices=names, metavar=metavar, default=names, help=words)
    report, picture = command.writable(".json", like=is_report), (".png", ".svg", ".pdf")
    words = "write all figures to this file as JSON"
    add("--json", type=report, metavar="FILE", help=words)
    words = f"draw a plot and save it as {' or '.join(picture)}"
    add("--plot", type=command.writable(*picture), metavar="FILE", help=words)
    add("--markdown", action="store_true", help="print the table as Markdown")
    add(
        "--quick",
        action="store_true",
        help="use a tiny network and little data, to see that it works: the figures mean nothing",
    )


def is_report(content):
    """Whether the content of a JSON file is a benchmark's report."""
    return {"machine", "preset", "rounds"} <= content.keys()
