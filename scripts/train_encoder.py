"""Train the encoder whose features images are compared in."""

import sys
import time
from pathlib import Path

import command

ROOT = Path(__file__).resolve().parents[1]


def parse_arguments():
    parser = command.Parser(
        description="Train a small classifier of the flowers' species, each of which has a folder "
        "of its own. What it works out before it names one, its features, is what "
        "scripts/evaluate.py compares pictures by. The validation split (without splits: each "
        "fourth picture) is held out and tells how well it does."
    )
    add = parser.add_argument
    parser.add_data_dir()
    add(
        "--output",
        type=Path,
        default=ROOT / "build" / "encoder.keras",
        help="the .keras file to write, once all is done; its record goes beside it (default: "
        "build/encoder.keras)",
    )
    add("--image-size", type=int, default=64, help="what it works at (default: %(default)s)")
    add("--epochs", type=int, default=30, help="times through all pictures (default: %(default)s)")
    add("--batch-size", type=int, default=64, help="pictures a step (default: %(default)s)")
    add("--painted", type=int, default=4000, help="how many to paint (default: %(default)s)")
    add("--seed", type=int, default=0, help="where all random choices come from (default: 0)")
    return parser.parse_args()


def check(arguments):
    """Refuse, before any work is done, what could only fail after it."""
    if arguments.output.suffix != ".keras":
        command.fail(f"--output {arguments.output}: name a .keras file, such as encoder.keras")
    least = {"image_size": 8, "epochs": 1, "batch_size": 1, "painted": 8, "seed": 0}
    for name, smallest in least.items():
        value = getattr(arguments, name)
        if value < smallest:
            command.fail(f"--{name.replace('_', '-')} must be {smallest} or more, got {value}")


def main():
    arguments = parse_arguments()
    check(arguments)
    command.load_keras()
    from diffusion.data.flowers import load_flowers

    flowers = load_flowers(
        arguments.data_dir,
        arguments.image_size,
        painted=arguments.painted,
        seed=arguments.seed,
        progress=sys.stderr.isatty(),
    )
    if len(flowers.class_names) < 2:
        command.fail(
            f"{flowers.name} has no species to tell apart: put each in a folder of its own"
        )
    print(train(arguments, flowers))


def train(arguments, flowers):
    """Train on the flowers, save the result with its record; return what to say about it."""
    from diffusion.data.holdout import hold_out
    from diffusion.evaluation.classifier import accuracy, save_classifier, train_classifier
    from diffusion.training.record import machine, versions

    classes = len(flowers.class_names)
    kept, held, words = hold_out(flowers)
    print(
        f"{classes} species, {len(kept):,} of {flowers.description}; held out: {words}", flush=True
    )
    started = time.perf_counter()
    seen = flowers.images[kept], flowers.labels[kept]
    others = flowers.images[held], flowers.labels[held]
    classifier = train_classifier(
        *seen,
        classes,
        validation=others,
        epochs=arguments.epochs,
        batch_size=arguments.batch_size,
        seed=arguments.seed,
        verbose=1 if sys.stdout.isatty() else 2,
        image_size=arguments.image_size,
    )
    record = {
        "data": flowers.description,
        "held_out": words,
        "species": list(flowers.class_names),
        "epochs": arguments.epochs,
        "steps": arguments.epochs * (len(kept) // arguments.batch_size),
        "batch_size": arguments.batch_size,
        "seed": arguments.seed,
        "seconds": time.perf_counter() - started,
        "machine": machine(),
        "versions": versions(),
        "accuracy": accuracy(classifier, *seen),
        "held_out_accuracy": accuracy(classifier, *others),
    }
    save_classifier(classifier, arguments.output, record)
    megabytes = arguments.output.stat().st_size / 1e6
    return (
        f"{record['steps']:,} steps in {record['seconds']:.0f} s; species named right: "
        f"{record['accuracy']:.1%} of those learnt from, {record['held_out_accuracy']:.1%} of "
        f"those held out; saved in {arguments.output}, {megabytes:.1f} MB"
    )


if __name__ == "__main__":
    command.run(main)
