"""How the cost of training and sampling grows: time and memory against one number at a time."""

import json
from pathlib import Path

from benchmarks.benchmark import check_measuring
from scripts import command

SWEEPS = ("batch", "size", "width", "steps", "drawn")


def parse_arguments():
    parser = command.Parser(
        description="Measure how time and memory of the book network grow with batch size, image "
        "size and width in training, with steps and number of pictures in sampling. Each point "
        "is a process of its own, whose peak memory is taken: on two CPU cores all of them take "
        "some fifteen minutes. Let nothing else run meanwhile.",
    )
    add = parser.add_argument
    add("--rounds", type=int, default=3, help="measurements of a point (default: %(default)s)")
    add(
        "--only",
        nargs="+",
        choices=SWEEPS,
        metavar="WHAT",
        default=SWEEPS,
        help=f"vary these alone, of {', '.join(SWEEPS)}",
    )
    add("--json", type=Path, metavar="FILE", help="write all figures as JSON")
    add("--plot", type=Path, metavar="FILE", help="draw them, as .png, .svg or .pdf")
    add("--markdown", action="store_true", help="print the table as Markdown")
    add("--quick", action="store_true", help="a tiny network, few points: to see that it works")
    add("--point", help="measure this one, here, and print it: what a point's process is told")
    return parser.parse_args()


def main():
    arguments = parse_arguments()
    check_measuring(arguments)
    command.load_keras()
    from benchmarks import growth

    if arguments.point:
        print(json.dumps(growth.measure(json.loads(arguments.point))))
        return 0
    from diffusion.support.files import write_json

    report = growth.measure_all(
        arguments.only, arguments.rounds, arguments.quick, [Path(__file__), "--point"]
    )
    print(growth.as_text(report, arguments.markdown))
    if arguments.json:
        write_json(arguments.json, report)
    if arguments.plot:
        growth.plot(report, arguments.plot)
    return 0


if __name__ == "__main__":
    command.run(main)
