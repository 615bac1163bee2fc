"""Evaluate a trained model by the images it generates.

Published for this data and network: KID 0.282 at 75 pixels, 5 steps of ddim, on the validation
split, averaged over batches (trained with the absolute error; 0.399 with the squared one). Only
what --encoder inception-75 says in the column kid/batch, with all 8,189 flowers, is comparable
with it.
"""

import sys
from pathlib import Path

import command

ROOT = Path(__file__).resolve().parents[1]
PUBLISHED = " ".join(__doc__.split("\n\n", 1)[1].split())


def parse_arguments():
    parser = command.Parser(
        description="Draw pictures by each sampler with each number of steps, and tell how far "
        "they are from real ones held out: KID with its standard error, FID, precision and recall "
        "in an encoder's features, beside what real pictures reach against other real ones.",
        epilog=PUBLISHED,
    )
    add = parser.add_argument
    parser.add_model()
    parser.add_data_dir()
    add(
        "--split",
        default="valid",
        help="which split to compare with: train, valid or test; of data without splits it is "
        "each fourth picture (default: %(default)s)",
    )
    add(
        *("--samplers", "--sampler"),
        nargs="+",
        default=["ddim", "dpm_solver"],
        metavar="NAME",
        help="samplers, as for generate.py (default: ddim dpm_solver)",
    )
    add(
        "--steps",
        type=int,
        nargs="+",
        default=[5, 10, 20],
        metavar="N",
        help="numbers of steps, that is of questions to the network (default: 5 10 20)",
    )
    add(
        "--num-images",
        type=int,
        default=512,
        help="how many pictures to draw each time (default: %(default)s)",
    )
    add(
        "--encoder",
        default="flowers",
        metavar="NAME",
        help="flowers (ships with the course), inception-75, inception-299 (downloaded once), or a "
        ".keras file of scripts/train_encoder.py (default: %(default)s)",
    )
    add("--seed", type=int, default=0, help="the same seed draws the same (default: %(default)s)")
    add("--json", type=Path, metavar="FILE", help="write the table there, too, as JSON")
    add(
        "--plot",
        type=Path,
        metavar="FILE",
        default=ROOT / "build" / "evaluation.png",
        help="the picture to write (default: build/evaluation.png)",
    )
    return parser.parse_args()


def check(arguments):
    """Refuse, before any work is done, what could only fail after it."""
    if arguments.plot.suffix.lower() != ".png":
        command.fail(f"--plot {arguments.plot}: name a .png file, such as evaluation.png")
    if arguments.seed < 0:
        command.fail(f"--seed must be 0 or more, got {arguments.seed}")
    from diffusion.evaluation.evaluate import check_request

    check_request(arguments.samplers, arguments.steps, arguments.num_images)


def main():
    arguments = parse_arguments()
    command.load_keras()
    check(arguments)
    from tqdm import tqdm

    from diffusion.data.holdout import hold_out, seen_in_training
    from diffusion.evaluation.encoder import choose_encoder
    from diffusion.evaluation.evaluate import evaluate_samplers, table
    from diffusion.support.files import write_json
    from diffusion.training.export import load_run

    run = load_run(arguments.model)
    flowers = load(arguments, run)
    _, held, words = hold_out(flowers, arguments.split)
    encoder, encoder_words = choose_encoder(arguments.encoder)
    conditions = [
        f"{run.caption}",
        f"compared with {words}, by {encoder_words}",
        seen_in_training(run.record, flowers, arguments.split),
        "FID falls as pictures are added, so compare it for equal numbers only: the two halves of "
        "the real ones are fewer",
        PUBLISHED,
    ]
    print("\n".join(conditions[:3]), flush=True)
    rounds = len(arguments.samplers) * len(arguments.steps)
    total = len(held) + arguments.num_images * rounds
    with tqdm(total=total, unit="picture", disable=None) as bar:
        rows = evaluate_samplers(
            run.model,
            encoder,
            flowers.images[held],
            arguments.samplers,
            arguments.steps,
            arguments.num_images,
            arguments.seed,
            on_pictures=bar.update,
        )
    print(table(rows))
    print("\n".join(conditions[3:]))
    if arguments.json:
        write_json(arguments.json, {"conditions": conditions, "rows": rows})
    plot(rows, arguments.plot, "\n".join(conditions[:2]))
    print(f"plotted in {arguments.plot}")


def load(arguments, run):
    """Load the flowers as the model was shown them: at its size, cropped or stretched alike."""
    from diffusion.data.flowers import load_flowers

    config = run.record["config"]
    return load_flowers(
        arguments.data_dir,
        run.model.image_size,
        config["fit"],
        painted=config["painted"],
        seed=config["seed"],
        progress=sys.stderr.isatty(),
    )


def plot(rows, path, caption):
    """Draw each measure against the number of steps, a line for each sampler."""
    import utils
    import matplotlib.pyplot as plt

    from diffusion.support.files import written_whole

    floor, *drawn = rows
    figure, axes = plt.subplots(1, 4, figsize=(13, 3.8))
    names = {"kid": "KID", "fid": "FID", "precision": "precision", "recall": "recall"}
    for axis, (name, title) in zip(axes, names.items(), strict=True):
        for sampler in dict.fromkeys(row["sampler"] for row in drawn):
            mine = sorted((r for r in drawn if r["sampler"] == sampler), key=lambda r: r["steps"])
            errors = [row["kid_error"] for row in mine] if name == "kid" else None
            points = [row["steps"] for row in mine], [row[name] for row in mine]
            axis.errorbar(*points, yerr=errors, marker="o", capsize=3, label=sampler)
        axis.axhline(floor[name], color="0.4", linestyle="--", lw=1, label=floor["sampler"])
        axis.set(title=title, xlabel="steps", xscale="log")
        steps = sorted({row["steps"] for row in drawn})
        axis.set_xticks(steps, [str(count) for count in steps])
        axis.minorticks_off()
        axis.set_ylim(bottom=min(0, axis.get_ylim()[0]))
    axes[0].legend(fontsize=9)
    utils.add_caption(figure, caption)
    with written_whole(path) as temporary:
        figure.savefig(temporary)
    plt.close(figure)


if __name__ == "__main__":
    command.run(main)
