"""What `test_backends.py` does on each backend: the same training steps, the same images.

From the same seed, the backends' random generators draw different numbers, so noises and times
come from a table here. `parity.py FOLDER` runs the other backend's half of the test.
"""

import sys
from pathlib import Path

import keras
import numpy as np
from keras import ops

from diffusion.data.flowers import load_flowers
from diffusion.model import DiffusionModel
from diffusion.schedules import OffsetCosineSchedule
from diffusion.training.config import get_preset
from diffusion.training.loop import load_model, train
from diffusion.unet import build_unet

SIZE, BATCH, STEPS = 16, 8, 5
PARTS = ("network", "ema_network", "optimizer")
random = np.random.default_rng(7)
IMAGES = random.integers(0, 256, (STEPS, BATCH, SIZE, SIZE, 3)).astype("uint8")
NOISES = random.normal(size=(STEPS, BATCH, SIZE, SIZE, 3)).astype("float32")
TIMES = random.uniform(size=(STEPS, BATCH, 1, 1, 1)).astype("float32")
START = random.normal(size=(4, SIZE, SIZE, 3)).astype("float32")


@keras.saving.register_keras_serializable(package="tests")
class Replaying(DiffusionModel):
    """The library's model with tabulated noises and times; its seed's state counts the steps.

    That state is compiled and saved as it is for real random numbers.
    """

    def sample_noises_and_times(self, shape):
        _, step = ops.unstack(ops.cast(self.seed_generator.next(), "int32"))
        return ops.take(NOISES, step, axis=0), ops.take(TIMES, step, axis=0)


def untrained():
    """Return a compiled model of the tiny preset's size with the statistics of `IMAGES`."""
    network = build_unet(SIZE, (8, 16), 1, 8)
    # The last layer starts at zero, which would hide the layers below it in the first step.
    kernel = network.get_layer("pred_noises").kernel
    kernel.assign(0.1 * np.random.default_rng(1).normal(size=kernel.shape))
    model = Replaying(network, OffsetCosineSchedule(), ema=0.9)
    model.compile(
        optimizer=keras.optimizers.AdamW(1e-3, weight_decay=1e-4),
        loss="mean_absolute_error",
        jit_compile=keras.backend.backend() == "jax",
    )
    model.optimizer.build(model.trainable_variables)
    model.adapt(IMAGES.reshape(-1, SIZE, SIZE, 3))
    return model


def steps(model, first, last):
    """Train from step `first` up to, not including, `last`.

    Returns the loss of each step and all variables before and after it: {"<part>/<step>/<index>"}.
    """
    seen = variables(model, first)
    for step in range(first, last):
        model.reset_metrics()
        seen[f"loss/{step + 1}"] = np.asarray(model.train_on_batch(IMAGES[step]))
        seen |= variables(model, step + 1)
    return seen


def variables(model, step):
    """Return all variables of the model and its optimizer."""
    parts = {name: getattr(model, name) for name in PARTS}
    return {
        f"{name}/{step}/{index}": ops.convert_to_numpy(variable)
        for name, part in parts.items()
        for index, variable in enumerate(part.variables)
    }


def generated(model):
    """Generate images from `START`, and unclipped ones with other numbers of steps."""
    seen = {"images/5": model.generate(initial_noise=START, steps=5)}
    for count in (1, 20):
        seen[f"unclipped/{count}"] = ops.convert_to_numpy(model.reverse_diffusion(START, count))
    return seen


def first_half(folder, name):
    """Train `folder`'s initial model and generate from it; return all results.

    Leaves `<name>.keras`, one step short of the end, and `<name>-run`, a run interrupted in its
    second epoch.
    """
    model = load_model(folder / "start.keras")
    seen = steps(model, 0, STEPS - 1)
    model.save(folder / f"{name}.keras")
    seen |= steps(model, STEPS - 1, STEPS) | generated(model)
    stopped = run(folder, name, max_steps=8)
    return seen | {"run/losses": stopped.losses}


def second_half(folder, name):
    """Continue from what the other backend left under `name`; return all results."""
    model = load_model(folder / f"{name}.keras")
    seen = steps(model, STEPS - 1, STEPS) | generated(model)
    resumed = run(folder, name, resume=True)
    return seen | {"run/losses": resumed.losses, "run/steps": resumed.record["steps"]}


def run(folder, name, **options):
    """Train the tiny preset in `<name>-run`: two epochs of six steps each."""
    config = get_preset("tiny")
    flowers = load_flowers("painted", SIZE, painted=48, cache_dir=folder / "cache", progress=False)
    return train(config, flowers, folder / f"{name}-run", sample_every=0, verbose=0, **options)


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    np.savez(folder / "there.npz", **first_half(folder, "there"))
    np.savez(folder / "there-from-here.npz", **second_half(folder, "here"))
