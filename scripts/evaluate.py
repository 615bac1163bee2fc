"""Evaluate a trained model by the images it generates.

Published for this data and network: KID 0.282 at 75 pixels, 5 steps of ddim, on the validation
split, averaged over batches (trained with the absolute error; 0.399 with the squared one). Only
the column kid/batch of --encoder inception-75, with all 8,189 flowers, is comparable with it.
"""

import sys

import command

from diffusion.data.folders import SPLITS
from diffusion.support.paths import SHIPPED
from diffusion.support.registry import names_in

PUBLISHED = " ".join(__doc__.split("\n\n", 1)[1].split())
NOTES = [
    "FID falls as images are added, so compare it for equal numbers only: the two halves of the "
    "real ones have fewer",
    PUBLISHED,
]


def parse_arguments():
    parser = command.Parser(
        description="Generate images by each sampler with each number of steps, and measure how "
        "far they are from real images held out: KID with its standard error, FID, precision and "
        "recall in an encoder's features, beside what real images reach against other real ones. "
        "A model with names generates each name as often as it occurs among the real images; then "
        "the share of images that a classifier names right is measured, too.",
        epilog=PUBLISHED,
    )
    add = parser.add_argument
    parser.add_model(recorded=True)
    parser.add_data_dir()
    words = "the split to compare with: train, valid or test; data without splits holds out every "
    words += "fourth image (default: %(default)s)"
    add("--split", type=command.one_of(SPLITS), default="valid", help=words)
    add(
        *("--samplers", "--sampler"),
        type=command.one_of(names_in("samplers", "SAMPLERS")),
        nargs="+",
        default=["ddim", "dpm_solver"],
        metavar="NAME",
        help="samplers, as for generate.py (default: ddim dpm_solver)",
    )
    count, default = command.number(least=1), [5, 10, 20]
    words = "numbers of steps, that is of network evaluations (default: 5 10 20)"
    add("--steps", type=count, nargs="+", default=default, metavar="N", help=words)
    parser.add_count("--num-images", 512, "number of images to generate each time", least=8)
    words = "flowers (ships with the course), inception-75, inception-299 (downloaded once), or a "
    words += ".keras file of scripts/train_encoder.py (default: %(default)s)"
    add("--encoder", type=encoder, default="flowers", metavar="NAME", help=words)
    words = "guidance scales for a model with names, as for generate.py "
    parser.add_guidance(words + f"(default: {command.GUIDANCE:g})", nargs="+")
    parser.add_seed()
    table = command.writable(".json", like=is_evaluation)
    add("--json", type=table, metavar="FILE", help="also write the table there, as JSON")
    picture = command.writable(".png")
    parser.add_file("--plot", picture, "evaluation.png", "the picture file to write")
    arguments = parser.parse_args()
    parser.check_guidance(arguments)
    path = arguments.model or SHIPPED
    for option in ("guidance", "guidance_interval"):
        if getattr(arguments, option) and not command.class_names(path):
            parser.error(f"--{option.replace('_', '-')} needs names: {path} has none")
    for output in filter(None, (arguments.json, arguments.plot)):
        command.check_not_source(output, arguments.data_dir)
    return arguments


def encoder(text):
    """An argparse type: an encoder's name, or its `.keras` file."""
    if not text.endswith(".keras"):
        return command.one_of((*names_in("evaluation.encoder", "ENCODERS"), "a .keras file"))(text)
    return str(command.model(text))


def is_evaluation(content):
    """Whether the content of a JSON file is what --json writes."""
    return content.keys() == {"conditions", "rows"}


def main():
    arguments = parse_arguments()
    command.load_keras()
    from tqdm import tqdm

    from diffusion.data.holdout import hold_out, seen_in_training
    from diffusion.evaluation.encoder import choose_encoder
    from diffusion.evaluation.evaluate import evaluate_samplers, table
    from diffusion.support.files import write_json
    from diffusion.training.export import load_run

    run = load_run(arguments.model)
    encoder, encoder_words = choose_encoder(arguments.encoder)
    flowers = load(arguments, run)
    _, held, words = hold_out(flowers, arguments.split)
    by_name, name_words = names(arguments, run.model, flowers, held)
    conditions = [
        f"{run.caption}",
        f"compared with {words}, by {encoder_words}",
        seen_in_training(run.record, flowers, arguments.split),
        *name_words,
    ]
    print("\n".join(conditions), flush=True)
    rounds = len(arguments.samplers) * len(arguments.steps) * len(by_name.get("guidance", [1]))
    total = len(held) + arguments.num_images * rounds
    with tqdm(total=total, unit="image", disable=None) as bar:
        rows = evaluate_samplers(
            run.model,
            encoder,
            flowers.images[held],
            arguments.samplers,
            arguments.steps,
            arguments.num_images,
            arguments.seed,
            on_progress=bar.update,
            **by_name,
        )
    print("\n".join([table(rows), *NOTES]))
    if arguments.json:
        write_json(arguments.json, {"conditions": conditions + NOTES, "rows": rows})
    plot(rows, arguments.plot, "\n".join(conditions[:2]))
    print(f"figure in {arguments.plot}")


def names(arguments, model, flowers, held):
    """Return what `evaluate_samplers` takes for a model with names, and a line about it."""
    if not model.labelled:
        return {}, []
    from diffusion.evaluation.naming import load_species_classifier

    named = [flowers.class_names[label] for label in flowers.labels[held]]
    if other := sorted(set(named) - set(model.class_names)):
        command.fail(
            f"the model does not know {other[0]!r}, one of the names of {flowers.name}: name the "
            "data it was trained on (--data-dir)"
        )
    interval = arguments.guidance_interval
    where = "from {:g} to {:g}".format(*interval) if interval else "everywhere"
    path, classifier = arguments.encoder if arguments.encoder.endswith(".keras") else None, None
    try:
        classifier = load_species_classifier(path)
        classifier.check(named)
        words = "named: the share that the flowers' classifier names right"
    except (ValueError, OSError) as error:
        words = f"named: not measured, {error}"
        classifier = None
    options = {
        "labels": named,
        "guidance": arguments.guidance or [command.GUIDANCE],
        "guidance_interval": interval,
        "classifier": classifier,
    }
    return options, [f"drawn by name, guided at noise rates {where}; {words}"]


def load(arguments, run):
    """Load the flowers as the model was trained on them: its resolution, cropped or stretched."""
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
    """Plot each measure against the steps, or against several scales of guidance."""
    import utils
    import matplotlib.pyplot as plt

    from diffusion.support.files import written_whole

    floor, *drawn = rows
    titles = {"kid": "KID", "fid": "FID", "precision": "precision", "recall": "recall"}
    if floor.get("named") is not None:
        titles["named"] = "named right"
    over, label, xlabel = "steps", "{sampler}", "steps"
    if len({row.get("guidance") for row in drawn}) > 1:
        over, label, xlabel = "guidance", "{sampler}, {steps} steps", "guidance scale"
    figure, axes = plt.subplots(1, len(titles), figsize=(3.25 * len(titles), 3.8))
    for axis, (name, title) in zip(axes, titles.items(), strict=True):
        for line in dict.fromkeys(label.format(**row) for row in drawn):
            mine = [row for row in drawn if label.format(**row) == line]
            mine.sort(key=lambda row: row[over])
            errors = [row["kid_error"] for row in mine] if name == "kid" else None
            points = [row[over] for row in mine], [row[name] for row in mine]
            axis.errorbar(*points, yerr=errors, marker="o", capsize=3, label=line)
        axis.axhline(floor[name], color="0.4", linestyle="--", lw=1, label=floor["sampler"])
        axis.set(title=title, xlabel=xlabel, xscale="log" if over == "steps" else "linear")
        places = sorted({row[over] for row in drawn})
        axis.set_xticks(places, [f"{place:g}" for place in places])
        axis.minorticks_off()
        axis.set_ylim(bottom=min(0, axis.get_ylim()[0]))
    axes[0].legend(fontsize=9)
    utils.add_caption(figure, caption)
    with written_whole(path) as temporary:
        figure.savefig(temporary)
    plt.close(figure)


if __name__ == "__main__":
    command.run(main)
