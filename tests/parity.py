"""What `test_backends.py` does on each backend: the same training steps, the same pictures.

The backends' random generators draw other numbers from the same seed, so noises and times come
from a table here. As a program, `parity.py FOLDER`, it is the other backend's half of the test.
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
PICTURES = random.integers(0, 256, (STEPS, BATCH, SIZE, SIZE, 3)).astype("uint8")
NOISES = random.normal(size=(STEPS, BATCH, SIZE, SIZE, 3)).astype("float32")
TIMES = random.uniform(size=(STEPS, BATCH, 1, 1, 1)).astype("float32")
START = random.normal(size=(4, SIZE, SIZE, 3)).astype("float32")


@keras.saving.register_keras_serializable(package="tests")
class Replaying(DiffusionModel):
    """The library's model; what it draws stands in a table, and how far it is in its seed's state.

    That state is part of what is compiled and of what is saved, as for real random numbers.
    """

    def sample_noises_and_times(self, shape):
        _, step = ops.unstack(ops.cast(self.seed_generator.next(), "int32"))
        return ops.take(NOISES, step, axis=0), ops.take(TIMES, step, axis=0)


def untrained():
    """A model of the tiny preset's size, compiled, on the statistics of `PICTURES`."""
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
    model.adapt(PICTURES.reshape(-1, SIZE, SIZE, 3))
    return model


def steps(model, first, last):
    """Take the steps from `first` to before `last`.

    Returns the loss of each, and all variables before and after each: {"<part>/<step>/<index>"}.
    """
    seen = variables(model, first)
    for step in range(first, last):
        model.reset_metrics()
        seen[f"loss/{step + 1}"] = np.asarray(model.train_on_batch(PICTURES[step]))
        seen |= variables(model, step + 1)
    return seen


def variables(model, step):
    """All numbers that the model and its optimizer consist of."""
    parts = {name: getattr(model, name) for name in PARTS}
    return {
        f"{name}/{step}/{index}": ops.convert_to_numpy(variable)
        for name, part in parts.items()
        for index, variable in enumerate(part.variables)
    }


def drawn(model):
    """Pictures drawn from `START`, and what becomes of it in other numbers of steps, unclipped."""
    seen = {"pictures/5": model.generate(initial_noise=START, steps=5)}
    for count in (1, 20):
        seen[f"unclipped/{count}"] = ops.convert_to_numpy(model.reverse_diffusion(START, count))
    return seen


def first_half(folder, name):
    """Train on and draw from `folder`'s start, leave a model to go on from; return what was seen.

    Leaves `<name>.keras`, all steps but one from the start, and `<name>-run`, a run stopped amid
    its second epoch.
    """
    model = load_model(folder / "start.keras")
    seen = steps(model, 0, STEPS - 1)
    model.save(folder / f"{name}.keras")
    seen |= steps(model, STEPS - 1, STEPS) | drawn(model)
    stopped = run(folder, name, max_steps=8)
    return seen | {"run/losses": stopped.losses}


def second_half(folder, name):
    """Go on from what the other backend has left under `name`; return what was seen."""
    model = load_model(folder / f"{name}.keras")
    seen = steps(model, STEPS - 1, STEPS) | drawn(model)
    resumed = run(folder, name, resume=True)
    return seen | {"run/losses": resumed.losses, "run/steps": resumed.record["steps"]}


def run(folder, name, **options):
    """Train the tiny preset in `<name>-run`: two epochs of six steps."""
    config = get_preset("tiny")
    flowers = load_flowers("painted", SIZE, painted=48, cache_dir=folder / "cache", progress=False)
    return train(config, flowers, folder / f"{name}-run", sample_every=0, verbose=0, **options)


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    np.savez(folder / "there.npz", **first_half(folder, "there"))
    np.savez(folder / "there-from-here.npz", **second_half(folder, "here"))
