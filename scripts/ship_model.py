"""Make the model of a run small enough to ship: a command line over diffusion.training.export."""

from pathlib import Path

import command


def parse_arguments():
    parser = command.Parser(
        description="Write the model of a finished run as one small file for drawing: its moving "
        "average without the optimizer, in half precision; the run's record goes beside it."
    )
    parser.add_argument("run", type=Path, help="folder of the run, such as models/laptop-flowers")
    parser.add_argument("output", type=Path, help="the .keras file to write")
    return parser.parse_args()


def main():
    arguments = parse_arguments()
    command.load_keras()
    from diffusion.training.export import export_run, load_run

    run = load_run(arguments.run)
    export_run(run, arguments.output)
    megabytes = arguments.output.stat().st_size / 1e6
    print(f"{run.caption}: {arguments.output}, {megabytes:.1f} MB")


if __name__ == "__main__":
    command.run(main)
