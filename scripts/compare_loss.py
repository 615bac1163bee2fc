"""Is my loss normal? Draw a run's loss over that of reference runs, and say it in a sentence."""

from pathlib import Path

import command

ROOT = Path(__file__).resolve().parents[1]


def parse_arguments():
    parser = command.Parser(
        description="Is my loss normal? Draws the loss curves of runs over those of reference runs "
        "on the real flowers, prints both at some steps, and says whether they are normal.",
    )
    add = parser.add_argument
    add(
        "runs",
        nargs="*",
        type=Path,
        metavar="RUN",
        help="folder of a run, such as models/quick-flowers102, or of TensorBoard logs (default: "
        "the references alone)",
    )
    add("--preset", help="whose reference (default: the first run's preset, else book)")
    add(
        "--output",
        type=Path,
        default=ROOT / "build" / "loss_curves.png",
        help="the picture file to write (default: build/loss_curves.png)",
    )
    add(
        "--steps-per-epoch",
        type=int,
        help="for TensorBoard logs of other programs, which have one loss an epoch",
    )
    add(
        "--collect",
        nargs="+",
        type=Path,
        metavar="RUN",
        help="make these finished runs, alike but for their seed, their preset's reference instead",
    )
    add("--to", type=Path, help="the reference file that --collect writes (default: the project's)")
    return parser.parse_args()


def main():
    arguments = parse_arguments()
    if arguments.steps_per_epoch is not None and arguments.steps_per_epoch < 1:
        command.fail(f"--steps-per-epoch must be 1 or more, got {arguments.steps_per_epoch}")
    command.load_keras()  # for the look of all figures; and TensorBoard imports TensorFlow
    from diffusion.training.curves import read_curve
    from diffusion.training.reference_losses import (
        FILE,
        collect,
        plot_losses,
        read_references,
        table,
        verdict,
    )

    if arguments.collect:
        file = arguments.to or FILE
        preset = collect(arguments.collect, file)
        print(f"{file} has {len(arguments.collect)} runs of preset {preset}")
        arguments.preset = preset
    references = read_references(arguments.to or FILE)
    curves = [read_curve(run, arguments.steps_per_epoch) for run in arguments.runs]
    trained = [curve.about["config"]["name"] for curve in curves if "config" in curve.about]
    preset = arguments.preset or (trained or ["book"])[0]
    if preset not in references:
        choices = ", ".join(references)
        command.fail(
            f"no reference losses of preset {preset!r}: choose one of {choices} (--preset)"
        )
    reference = references[preset]
    print(f"Preset {preset} on {reference['data']}:\n\n{table(reference, curves)}\n")
    for curve in curves:
        print("\n".join(verdict(curve, reference)))
    plot_losses(arguments.output, reference, curves)
    print(f"figure in {arguments.output}")
    return 0


if __name__ == "__main__":
    command.run(main)
