"""Train a classifier of noisy images, whose gradient guides a diffusion model without names."""

import functools
import sys
import time

import command


def parse_arguments():
    parser = command.Parser(
        description="Train a small classifier of noisy flowers, one folder per species, that makes "
        "a model without names generate flowers by name: generate(labels=..., classifier=...). The "
        "validation split (without splits: every fourth image) is held out to measure accuracy."
    )
    words = "the model to guide, whose schedule and statistics are used: a .keras file or a run's "
    words += "folder (default: the one that ships, flowers-64.keras)"
    recorded = functools.partial(command.model, recorded=True)
    parser.add_argument("--model", type=recorded, help=words)
    parser.add_data_dir()
    output = command.writable(".keras", like=is_noisy_classifier, beside=is_record)
    words = "the .keras file to write at the end, with its record beside it"
    parser.add_file("--output", output, "noisy-classifier.keras", words)
    count = parser.add_count
    count("--epochs", 24, "passes through the images")
    count("--batch-size", 64, "images per step")
    count("--painted", 4000, "number of flowers to paint without photographs", least=8)
    parser.add_seed()
    return parser.parse_args()


def is_noisy_classifier(config):
    """Whether the config of a `.keras` file is that of a classifier saved by this script."""
    return config["class_name"] == "NoisyClassifier"


def is_record(content):
    """Whether the content of a JSON file is the record of such a classifier."""
    return {"data", "held_out", "held_out_accuracy_by_noise_rate"} <= content.keys()


def main():
    arguments = parse_arguments()
    command.load_keras()
    from diffusion.training.export import load_run

    run = load_run(arguments.model)
    flowers = command.load_species(arguments, run.model.image_size, run.record["config"]["fit"])
    print(train(arguments, run.model, flowers))


def train(arguments, model, flowers):
    """Train on the flowers, save the classifier with its record, and return a summary."""
    from diffusion.data.holdout import hold_out
    from diffusion.evaluation.noisy_training import train_noisy_classifier
    from diffusion.noisy_classifier import accuracy_by_noise
    from diffusion.support.keras_files import save_small
    from diffusion.training.record import machine, versions

    kept, held, words = hold_out(flowers)
    print(
        f"{len(flowers.class_names)} species, {len(kept):,} of {flowers.description}; held out: "
        f"{words}",
        flush=True,
    )
    started = time.perf_counter()
    classifier = train_noisy_classifier(
        model,
        flowers.images[kept],
        flowers.labels[kept],
        flowers.class_names,
        epochs=arguments.epochs,
        batch_size=arguments.batch_size,
        seed=arguments.seed,
        verbose=1 if sys.stdout.isatty() else 2,
    )
    seconds = time.perf_counter() - started
    steps = arguments.epochs * (len(kept) // arguments.batch_size)
    accuracies = [
        accuracy_by_noise(classifier, flowers.images[rows], flowers.labels[rows])
        for rows in (kept[:: max(1, len(kept) // len(held))], held)
    ]
    record = {
        "data": flowers.description,
        "held_out": words,
        "species": list(flowers.class_names),
        "schedule": repr(model.schedule),
        "epochs": arguments.epochs,
        "steps": steps,
        "batch_size": arguments.batch_size,
        "seed": arguments.seed,
        "seconds": seconds,
        "machine": machine(),
        "versions": versions(),
        "accuracy_by_noise_rate": accuracies[0],
        "held_out_accuracy_by_noise_rate": accuracies[1],
    }
    save_small(classifier, arguments.output, record)
    print("noise rate   accuracy, seen   held out")
    for rate, seen in accuracies[0].items():
        print(f"{rate:10.1f} {seen:16.1%} {accuracies[1][rate]:10.1%}")
    megabytes = arguments.output.stat().st_size / 1e6
    return f"{steps:,} steps in {seconds:.0f} s; saved in {arguments.output}, {megabytes:.1f} MB"


if __name__ == "__main__":
    command.run(main)
