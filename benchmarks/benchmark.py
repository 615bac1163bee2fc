"""This library against the chapter taken literally (tests/reference.py), in one run."""

import time
from pathlib import Path

from scripts import command

NAMES = (
    *("training", "xla", "sampling", "sampling-many", "pipeline", "memory", "overhead", "gpu"),
)


def parse_arguments():
    parser = command.Parser(
        description="Measure this library against the chapter taken literally, in alternation "
        "within one run, and print a table: medians of the rounds, and their range. It takes "
        "under five minutes on two CPU cores; let nothing else run meanwhile.",
    )
    add = parser.add_argument
    add("--rounds", type=int, default=3, help="measurements of each case (default: %(default)s)")
    add(
        "--only",
        nargs="+",
        choices=NAMES,
        metavar="ROW",
        default=NAMES,
        help=f"measure these alone, of {', '.join(NAMES)}",
    )
    add(
        "--data-dir",
        help="folder of flowers, as large as they came, for the input pipeline and the process "
        "whose memory is measured (default: painted ones)",
    )
    add("--json", type=Path, metavar="FILE", help="write everything, each round too, as JSON")
    add("--plot", type=Path, metavar="FILE", help="draw the ratios, as .png, .svg or .pdf")
    add("--markdown", action="store_true", help="print the table as Markdown")
    add(
        "--quick",
        action="store_true",
        help="a tiny network and few pictures, to see that it works: the figures mean nothing",
    )
    return parser.parse_args()


def check(arguments):
    """Refuse, before minutes of measuring, what could only fail after them."""
    check_measuring(arguments)
    if arguments.data_dir and not Path(arguments.data_dir).is_dir():
        command.fail(f"--data-dir {arguments.data_dir}: no such folder; name one of pictures")


def check_measuring(arguments):
    """Refuse --rounds that measure nothing, and --json and --plot that cannot be written."""
    if arguments.rounds < 1:
        command.fail(f"--rounds must be 1 or more, got {arguments.rounds}")
    if arguments.plot and arguments.plot.suffix not in (".png", ".svg", ".pdf"):
        command.fail(f"--plot {arguments.plot}: name a .png, .svg or .pdf file")
    for option in ("json", "plot"):
        path = getattr(arguments, option)
        if path and path.is_dir():
            command.fail(f"--{option} {path} is a folder: name a file in it")


def main():
    arguments = parse_arguments()
    check(arguments)
    start = time.perf_counter()
    command.load_keras()
    from benchmarks import machine, measures, rows, tables
    from diffusion.support.files import write_json

    setting = measures.QUICK if arguments.quick else measures.DEFAULT
    benchmark = rows.Benchmark(setting, arguments.only, arguments.rounds, arguments.data_dir)
    benchmark.run()
    if arguments.quick:
        benchmark.notes.append("A quick run: its figures mean nothing.")
    report = {
        "preset": setting.config.name,
        "machine": machine.describe(setting.config.precision),
        "rounds": arguments.rounds,
        "seconds": round(time.perf_counter() - start, 1),
        "rows": benchmark.results,
        "notes": benchmark.notes,
    }
    print(tables.as_text(report, arguments.markdown))
    if arguments.json:
        write_json(arguments.json, report)
    if arguments.plot:
        tables.plot(report, arguments.plot)
    return 0


if __name__ == "__main__":
    command.run(main)
