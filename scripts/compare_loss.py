"""Is my loss normal? A command line over diffusion.training.reference_losses."""

from pathlib import Path

import command

from diffusion.training.config import PRESETS


def parse_arguments():
    parser = command.Parser(
        description="Is my loss normal? Plots the loss curves of runs over those of reference runs "
        "on the real flowers, prints both at some steps, and says whether yours are normal.",
    )
    add = parser.add_argument
    add(
        "runs",
        nargs="*",
        type=Path,
        metavar="RUN",
        help="folder of a run, such as models/quick-painted, or of TensorBoard logs (default: "
        "the references alone)",
    )
    words = "the preset whose reference to use (default: the first run's, else book)"
    add("--preset", type=command.one_of(PRESETS), help=words)
    picture = command.writable(".png", ".svg", ".pdf", ".jpg")
    parser.add_file("--output", picture, "loss_curves.png", "the picture file to write")
    words = "for TensorBoard logs of other programs, which have one loss per epoch"
    add("--steps-per-epoch", type=command.number(least=1), help=words)
    words = "first make these runs, one or more that differ in their seed only, the reference of "
    add("--collect", nargs="+", type=Path, metavar="RUN", help=words + "their preset")
    words = "the file of references to use and update (default: the project's)"
    add("--to", type=command.writable(".json", like=holds_references), help=words)
    return parser.parse_args()


def main():
    arguments = parse_arguments()
    from diffusion.training.curves import read_curve
    from diffusion.training.reference_losses import (
        FILE,
        collect,
        plot_losses,
        read_references,
        table,
        verdict,
    )

    for run in (*arguments.runs, *(arguments.collect or [])):
        if not run.exists():
            command.fail(f"no run at {run}: name its folder, such as models/quick-painted")
    file = arguments.to or FILE
    preset = arguments.preset
    if arguments.collect:
        preset = collect(arguments.collect, file)
        print(f"{file}: reference of preset {preset}, {len(arguments.collect)} seed(s)")
    references = read_references(file)
    if preset:
        check(preset, references)  # before Keras is imported, which takes seconds
    command.load_keras()  # for the style of all figures; and TensorBoard imports TensorFlow
    curves = [read_curve(run, arguments.steps_per_epoch) for run in arguments.runs]
    trained = [curve.about["config"]["name"] for curve in curves if curve.about]
    preset = preset or (trained or ["book"])[0]
    check(preset, references)
    reference = references[preset]
    print(f"Preset {preset} on {reference['data']}:\n\n{table(reference, curves)}\n")
    for curve in curves:
        print("\n".join(verdict(curve, reference)))
    plot_losses(arguments.output, reference, curves)
    print(f"figure in {arguments.output}")
    return 0


def holds_references(content):
    """Return whether a JSON file's content is references: it may be replaced then."""
    return all("runs" in reference for reference in content.values())


def check(preset, references):
    """Refuse a preset that has no references."""
    if preset not in references:
        command.fail(
            f"no reference losses of preset {preset!r} yet: compare with those of "
            f"{' or '.join(references)} (--preset), or make your own (docs/is_my_loss_normal.md, "
            "'Make a reference')"
        )


if __name__ == "__main__":
    command.run(main)
