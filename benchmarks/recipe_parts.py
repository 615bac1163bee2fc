"""Measure what each part of the `laptop` recipe gains in the same time, adding them one by one."""

import dataclasses
import math
import sys
import time
from collections.abc import Iterator

from diffusion.training.config import PRESETS, Config, get_preset
from scripts import command

# Each part is added to the ones before it.
PARTS = (
    ("the chapter's: float32, rate 0.001, average of 0.999", {}),
    ("and bfloat16 where it is fast", {"precision": "auto"}),
    ("and the average warmed up", {"ema_warmup": True}),
    ("and a rate of {rate}, lowered to 0", {"decay_learning_rate": True}),
    ("and 60% of the time at half the size", {"half_size_epochs": 1}),
    ("and flips", {"flip": True}),
)
HALF_SIZE_SHARE = 0.6  # of the time


def parse_arguments():
    parser = command.Parser(
        prog="python -m benchmarks.recipe_parts",
        description="Train a network by the chapter's recipe, then with each part of the laptop "
        "recipe added, for the same processor time each; print the losses on held-out images.",
    )
    add = parser.add_argument
    add(
        "--preset",
        type=command.one_of(tuple(PRESETS)),
        default="quick",
        help="the preset whose network and image size to use (default: %(default)s)",
    )
    parser.add_data_dir()
    words = "processor time of each, summed over the cores (default: %(default)s)"
    add("--seconds", type=command.number(float, above=0), default=120, help=words)
    words = "train once with each seed and print the means (default: 0)"
    add("--seeds", type=command.SEED, nargs="+", default=[0], help=words)
    add("--markdown", action="store_true", help="print the table as Markdown")
    return parser.parse_args()


def main():
    arguments = parse_arguments()
    command.load_keras()
    import numpy as np

    from diffusion.data.flowers import load_flowers
    from diffusion.data.holdout import hold_out
    from diffusion.support.tables import lay_out

    preset = get_preset(arguments.preset)
    flowers = load_flowers(
        arguments.data_dir, preset.image_size, preset.fit, progress=sys.stderr.isatty()
    )
    learn, held, words = hold_out(flowers)
    images = flowers.images[learn], flowers.images[held[:384]]
    print(f"{len(learn):,} images for training; losses on {len(images[1])} of {words}")
    rows = [("recipe", "steps", "loss of the network", "loss of its average")]
    for name, config in recipes(preset):
        runs = [
            train(dataclasses.replace(config, seed=seed), images, arguments.seconds)
            for seed in arguments.seeds
        ]
        steps, network, average = np.mean(runs, axis=0)
        label = name.format(rate=config.learning_rate)
        rows.append((label, f"{steps:.0f}", f"{network:.4f}", f"{average:.4f}"))
        print(lay_out(rows)[-1], flush=True)
    print("\n".join(lay_out(rows, arguments.markdown)))
    return 0


def recipes(preset: Config) -> Iterator[tuple[str, Config]]:
    """Yield (name, config) pairs, each with one more part than the one before."""
    config = dataclasses.replace(
        preset,
        precision="float32",
        learning_rate=1e-3,
        decay_learning_rate=False,
        ema=0.999,
        ema_warmup=False,
        half_size_epochs=0,
        flip=False,
    )
    for name, changes in PARTS:
        if "decay_learning_rate" in changes:
            changes = {**changes, "learning_rate": preset.learning_rate}
        config = dataclasses.replace(config, **changes)
        yield name, config


def train(config: Config, images: tuple, seconds: float) -> tuple:
    """Train on the first of two arrays of images for `seconds` of processor time.

    Returns the steps taken, and the losses of the network and of its average on the second.
    """
    from diffusion.data.batches import Batches, halve
    from diffusion.training.building import build, resized

    images, held = images
    plain = dataclasses.replace(config, decay_learning_rate=False)  # `Budget` lowers it
    stages = [(config.image_size, None, seconds)]
    if config.half_size_epochs:
        stages.insert(0, (config.image_size // 2, halve, HALF_SIZE_SHARE * seconds))
    model = build(plain, 1, stages[0][0])
    model.adapt(images)
    budget = Budget(config, seconds)
    for size, transform, end in stages:
        if model.image_size != size:
            model = resized(model, plain, size)
        batches = Batches(
            images, config.batch_size, flip=config.flip, seed=config.seed, transform=transform
        )
        budget.run(model, batches, end)
    return budget.steps, *(held_out_loss(model, held, training) for training in (True, False))


class Budget:
    """Processor time to spend on training steps, not counting compilation."""

    def __init__(self, config, seconds):
        self.config, self.seconds, self.spent, self.steps = config, seconds, 0.0, 0

    def run(self, model, batches, end):
        """Train until `end` seconds are spent."""
        first = True
        for batch in endless(batches):
            if self.spent >= end:
                return
            if self.config.decay_learning_rate:
                model.optimizer.learning_rate = self.learning_rate()
            started = time.process_time()
            model.train_on_batch(batch)
            self.spent += 0 if first else time.process_time() - started
            self.steps, first = self.steps + 1, False

    def learning_rate(self):
        """Return the rate: warmed up over a twentieth of the time, then a half cosine to 0."""
        share = min(1, self.spent / self.seconds)
        warmth = min(1, share / 0.05 + 0.01)
        return self.config.learning_rate * warmth * math.cos(share * math.pi / 2) ** 2


def endless(batches) -> Iterator:
    """Yield the batches of one epoch after another."""
    while True:
        yield from batches
        batches.on_epoch_end()


def held_out_loss(model, images, training: bool) -> float:
    """Return the mean absolute error of the noise on held-out images, at evenly spaced times."""
    import numpy as np
    from keras import ops

    network = model.network if training else model.ema_network
    images = ops.convert_to_numpy(model.normalize(images))
    noises = np.random.default_rng(1).normal(size=images.shape).astype("float32")
    times = ((np.arange(len(images)) + 0.5) / len(images)).reshape(-1, 1, 1, 1)
    noise_rates, signal_rates = map(ops.convert_to_numpy, model.schedule(times))
    noisy = signal_rates * images + noise_rates * noises
    predicted = network.predict([noisy, noise_rates**2], batch_size=64, verbose=0)
    return float(np.abs(predicted - noises).mean())


if __name__ == "__main__":
    command.run(main)
