"""Train the encoder whose features images are compared in."""

import sys
import time

import command


def parse_arguments():
    parser = command.Parser(
        description="Train a small classifier of flower species, one folder per species. Its "
        "penultimate layer gives the features in which scripts/evaluate.py compares images. The "
        "validation split (without splits: every fourth image) is held out to measure accuracy."
    )
    parser.add_data_dir()
    output = command.writable(".keras", like=is_classifier, beside=is_record)
    words = "the .keras file to write at the end, with its record beside it"
    parser.add_file("--output", output, "encoder.keras", words)
    count = parser.add_count
    count("--image-size", 64, "resolution the network works at", least=8)
    count("--epochs", 30, "passes through the images")
    count("--batch-size", 64, "images per step")
    count("--painted", 4000, "number of flowers to paint without photographs", least=8)
    parser.add_seed()
    return parser.parse_args()


def is_classifier(config):
    """Whether the config of a `.keras` file is that of a classifier saved by this script."""
    return config["class_name"] == "Functional" and config["config"]["name"] == "classifier"


def is_record(content):
    """Whether the content of a JSON file is the record of a classifier."""
    return {"data", "held_out", "accuracy"} <= content.keys()


def main():
    arguments = parse_arguments()
    command.load_keras()
    print(train(arguments, command.load_species(arguments, arguments.image_size)))


def train(arguments, flowers):
    """Train on the flowers, save the classifier with its record, and return a summary."""
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
        f"{record['steps']:,} steps in {record['seconds']:.0f} s; accuracy: "
        f"{record['accuracy']:.1%} on the training images, {record['held_out_accuracy']:.1%} on "
        f"those held out; saved in {arguments.output}, {megabytes:.1f} MB"
    )


if __name__ == "__main__":
    command.run(main)
