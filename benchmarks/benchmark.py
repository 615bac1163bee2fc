"""Compare this library with the chapter taken literally (tests/reference.py), in one run."""

import time
from pathlib import Path

from benchmarks.options import add_options
from scripts import command

NAMES = ["training", "xla", "sampling", "sampling-many", "pipeline", "memory", "overhead", "gpu"]


def parse_arguments():
    parser = command.Parser(
        prog="python -m benchmarks.benchmark",
        description="Measure this library against the chapter taken literally, in alternation "
        "within one run, and print a table of medians and ranges. It takes under five minutes on "
        "two CPU cores; let nothing else run meanwhile.",
    )
    add_options(parser, NAMES, "ROW")
    parser.add_argument(
        "--data-dir",
        help="folder of flowers at their original size, for the input pipeline and for the "
        "process whose memory is measured (default: painted ones)",
    )
    return parser.parse_args()


def main():
    arguments = parse_arguments()
    if arguments.data_dir and not Path(arguments.data_dir).is_dir():
        command.fail(f"--data-dir {arguments.data_dir}: no such folder; name one of pictures")
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
