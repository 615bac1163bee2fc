"""Measure how the cost of training and sampling grows, varying one number at a time."""

import argparse
import json

from benchmarks.options import add_options
from scripts import command

SWEEPS = ("batch", "size", "width", "steps", "drawn")
# What a point of each kind of work must say beside "work" and "changes".
POINT_NUMBERS = {
    "nothing": (),
    "training": ("rounds", "seconds"),
    "sampling": ("rounds", "seconds", "drawn", "steps"),
}


def parse_arguments():
    parser = command.Parser(
        prog="python -m benchmarks.cost_growth",
        description="Measure how the time and memory of the book network grow with batch size, "
        "image size and width in training, and with the steps and the number of images in "
        "sampling. Each point is a process of its own, whose peak memory is taken: all of them "
        "take some fifteen minutes on two CPU cores. Let nothing else run meanwhile.",
    )
    add_options(parser, SWEEPS, "SWEEP")
    parser.add_argument(
        "--point",
        type=point,
        metavar="JSON",
        help="measure this one point in this process and print the result: how each point's own "
        "process is started",
    )
    return parser.parse_args()


def point(text: str) -> dict:
    """Parse a point as `growth.measure` takes it; refuse what it could not measure."""
    try:
        value = json.loads(text)
        numbers = [value[name] for name in POINT_NUMBERS[value["work"]]]
        usable = isinstance(value["changes"]["preset"], str) and all(n > 0 for n in numbers)
    except (ValueError, TypeError, LookupError):
        usable = False
    if not usable:
        raise argparse.ArgumentTypeError(
            f'{text} is no point: it needs "work" ({", ".join(POINT_NUMBERS)}), "changes" with a '
            '"preset", and numbers above 0: "rounds", "seconds", to sample also "drawn", "steps"'
        )
    return value


def main():
    arguments = parse_arguments()
    command.load_keras()
    from benchmarks import growth

    if arguments.point:
        print(json.dumps(growth.measure(arguments.point)))
        return 0
    from diffusion.support.files import write_json

    start_point = ["-m", "benchmarks.cost_growth", "--point"]
    report = growth.measure_all(arguments.only, arguments.rounds, arguments.quick, start_point)
    print(growth.as_text(report, arguments.markdown))
    if arguments.json:
        write_json(arguments.json, report)
    if arguments.plot:
        growth.plot(report, arguments.plot)
    return 0


if __name__ == "__main__":
    command.run(main)
