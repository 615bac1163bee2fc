"""This library's cases, and how cases are timed: in rounds of alternation.

A case is a function `case(count) -> seconds` that does `count` units of its work (training steps,
calls of `generate`, epochs of batches) and returns only when they are done.
"""

import dataclasses
import itertools
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import keras
import numpy as np
from PIL import Image

from diffusion.data.batches import Batches, EpochFromFit
from diffusion.data.cache import cached
from diffusion.data.folders import find_pictures
from diffusion.data.painting import paint_flowers
from diffusion.training.building import build
from diffusion.training.config import get_preset


@dataclasses.dataclass(frozen=True)
class Setting:
    """How much work a benchmark does, and with which network."""

    config: object
    few: int = 10  # images generated at once
    many: int = 256  # images generated at once, for throughput
    steps: int = 20  # of the sampler
    many_steps: int = 1  # of these, so many are measured for `many`; the cost is linear in them
    pictures: int = 200  # files for the input pipeline
    picture_size: tuple = (500, 667)  # width and height of painted ones: those of Oxford's
    rows: int = 8189  # images in the cached array: more than fit in a processor's cache
    memory_steps: int = 4  # training steps of a process whose memory is measured
    seconds: float = 3.0  # a round of a case takes at least this, in as many units as it needs


DEFAULT = Setting(get_preset("book"))
QUICK = Setting(
    get_preset("tiny", precision="auto"), 2, 4, 4, 2, 24, (100, 133), 200, 3, seconds=0.05
)


@dataclasses.dataclass
class Timing:
    """Seconds per unit of work: the first time, and in each round after that."""

    first: float
    rounds: list


def alternate(cases: dict, rounds: int, seconds: float, report=lambda line: None) -> dict:
    """Time `cases` (name -> case) in alternation; return name -> `Timing`.

    The first unit of each, which traces and compiles functions, is the warm-up. Then come `rounds`
    rounds of all cases in turn, so that a disturbance of the machine affects all of them. In the
    first round a case does one unit, later as many as fit into `seconds`, but at least one.
    """
    timings = {}
    for name, case in cases.items():
        report(f"{name}: warm-up")
        timings[name] = Timing(case(1), [])
    for number in range(rounds):
        for name, case in cases.items():
            known = timings[name].rounds
            count = max(1, int(seconds / statistics.median(known))) if known else 1
            known.append(case(count) / count)
            report(f"{name}: round {number + 1} of {rounds}, {known[-1]:.4g} s a unit")
    return timings


def timed(once: Callable) -> Callable:
    """Turn `once()`, a unit of work that returns when everything is computed, into a case."""

    def case(count):
        start = time.perf_counter()
        for _ in range(count):
            once()
        return time.perf_counter() - start

    return case


class StepClock(keras.callbacks.Callback):
    """Record when each training step ends."""

    def on_train_begin(self, logs=None):
        self.ends = []

    def on_train_batch_end(self, batch, logs=None):
        float(logs["loss"])  # reading the loss waits for the accelerator
        self.ends.append((batch, time.perf_counter()))

    def seconds_a_step(self):
        """Return the mean over all steps but the first, which opens the data and fills a queue."""
        (first, start), (last, end) = self.ends[0], self.ends[-1]
        return (end - start) / (last - first)


class Ours:
    """The library's cases, through the public calls that its scripts make."""

    def __init__(self, config):
        self.config = config
        self.model = build(self.config, total_steps=1000)
        shape = (self.config.batch_size, self.config.image_size, self.config.image_size, 3)
        self.images = np.random.default_rng(0).integers(0, 256, shape, "uint8")
        self.model.adapt(self.images)

    def training(self, count):
        """Case: `count` steps of `fit` on `Batches`."""
        # fit may take several steps in one call to the backend; the clock sees only the last.
        steps = (count + 1) * (self.model.steps_per_execution or 1)
        batches = Batches(self.images, self.config.batch_size, repeats=steps)
        clock = StepClock()
        self.model.fit(batches, shuffle=False, callbacks=[EpochFromFit(batches), clock], verbose=0)
        return clock.seconds_a_step() * count

    def network_alone(self):
        """Case: the network's forward and backward pass, compiled as by `fit`."""
        random = np.random.default_rng(0)
        shape = self.images.shape
        noisy_images, noises = random.normal(size=(2, *shape)).astype("float32")
        noise_variances = random.uniform(size=(shape[0], 1, 1, 1)).astype("float32")
        passes = compiled_passes(self.model)
        return timed(lambda: float(passes(noisy_images, noise_variances, noises)))

    def sampling(self, num_images, steps):
        """Case: generate `num_images` in `steps` DDIM steps."""
        return timed(lambda: self.model.generate(num_images, steps, seed=0))

    def pipeline(self, images):
        """Return an epoch of `Batches` over `images` as a case, and its number of images."""
        batches = Batches(images, self.config.batch_size, repeats=self.config.repeats)

        def epoch():
            for _ in batches:
                pass
            batches.on_epoch_end()

        return timed(epoch), len(batches) * batches.batch_size


def compiled_passes(model) -> Callable:
    """Return the network's forward and backward pass as a compiled function that returns the loss.

    All gradients are computed and discarded.
    """
    network = model.network
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        @tf.function(jit_compile=bool(model.jit_compile))
        def passes(noisy_images, noise_variances, noises):
            inputs = {"noisy_images": noisy_images, "noise_variances": noise_variances}
            with tf.GradientTape() as tape:
                pred_noises = network(inputs, training=True)
                loss = tf.reduce_mean(tf.abs(noises - pred_noises))
            return loss, tape.gradient(loss, network.trainable_weights)

        return lambda *inputs: passes(*map(tf.convert_to_tensor, inputs))[0]
    import jax

    def loss_of(weights, state, noisy_images, noise_variances, noises):
        inputs = {"noisy_images": noisy_images, "noise_variances": noise_variances}
        pred_noises, state = network.stateless_call(weights, state, inputs, training=True)
        return abs(noises - pred_noises).mean(), state

    passes = jax.jit(jax.value_and_grad(loss_of, has_aux=True))

    def run(*inputs):
        # looked up at each call: `fit` donates the old values' memory
        weights = [variable.value for variable in network.trainable_variables]
        state = [variable.value for variable in network.non_trainable_variables]
        return jax.block_until_ready(passes(weights, state, *inputs))[0][0]

    return run


def write_pictures(folder: Path, setting: Setting, data_dir=None) -> str:
    """Fill `folder` with `setting.pictures` picture files, from `data_dir` or painted.

    Painted ones get the size of Oxford's originals and some grain, so that decoding takes as long.
    Returns a description. Raises FileNotFoundError if there are no pictures under `data_dir`.
    """
    folder.mkdir(parents=True)
    if data_dir is not None:
        found = find_pictures(Path(data_dir).expanduser().resolve())[1]
        if not found:
            raise FileNotFoundError(f"no images under {data_dir}: name a folder of pictures")
        chosen = found[:: max(1, len(found) // setting.pictures)][: setting.pictures]
        for index, picture in enumerate(chosen):
            with Image.open(picture.path) as image:
                size = image.size
            (folder / f"{index}{picture.path.suffix}").write_bytes(picture.path.read_bytes())
        return f"{len(chosen)} pictures from {data_dir}, the last of {size[0]}x{size[1]} pixels"
    random = np.random.default_rng(0)
    width, height = setting.picture_size
    for index, pixels in enumerate(paint_flowers(setting.pictures, image_size=128)[0]):
        image = Image.fromarray(pixels).resize((width, height), Image.Resampling.BICUBIC)
        grainy = np.asarray(image) + random.normal(0, 5, (height, width, 1))
        Image.fromarray(grainy.clip(0, 255).astype("uint8")).save(folder / f"{index}.jpg")
    return f"{setting.pictures} painted pictures, {width}x{height}"


def as_many_rows(images: np.ndarray, rows: int, folder: Path) -> np.ndarray:
    """Repeat cached `images` until there are `rows` of them, in a new mapped array."""

    def fill(pixels):
        for row, image in zip(range(rows), itertools.cycle(images), strict=False):
            pixels[row] = image
        return {"count": rows}

    return cached(folder / "repeated", [rows], (rows, *images.shape[1:]), fill)[0]
