"""Train by a recipe for a given processor time."""

import dataclasses
import functools
import math
import time
from collections.abc import Callable, Iterator

import numpy as np
from keras import ops

from benchmarks.recipes import Recipe
from diffusion.data.batches import Batches, halve
from diffusion.model import DiffusionModel
from diffusion.schedules import Schedule
from diffusion.training.building import NETWORKS, build, resized
from diffusion.training.config import Config


def train(
    recipe: Recipe, images: np.ndarray, labels: np.ndarray, class_names: tuple, seconds: float
) -> tuple[DiffusionModel, "Averages", int]:
    """Train on images (N, S, S, 3) with labels (N,) for `seconds` of processor time.

    Returns the model, the moving averages that the recipe asks for, and the number of steps.
    """
    config = recipe.config
    # `Budget` lowers the rate, by time instead of steps
    plain = dataclasses.replace(config, decay_learning_rate=False)
    builder = functools.partial(NETWORKS[config.network], **recipe.options)
    stages = sizes(recipe)
    model = build(plain, 1, stages[0][0], class_names, builder)
    model.adapt(images)
    schedule = model.schedule
    if recipe.middle_times:
        model.schedule = MiddleTimes(schedule)
    averages, budget = Averages(recipe, model), Budget(config, seconds)
    random, epoch = np.random.default_rng(config.seed), 0
    for size, share in stages:
        if model.image_size != size:
            model = resized(model, plain, size, builder)
        batches = Batches(
            images,
            config.batch_size,
            flip=config.flip,
            seed=config.seed,
            labels=labels if config.labels else None,
            transform=changes(config.image_size // size, recipe.shifts, random),
            epoch=epoch,
        )
        budget.run(model, batches, share * seconds, averages.update)
        epoch = batches.epoch + 1  # or the first images would be seen twice
    model.schedule = schedule
    return model, averages, budget.steps


def sizes(recipe: Recipe) -> list[tuple[int, float]]:
    """Return pairs (image size, share of the time spent when it ends)."""
    side, spent, pairs = recipe.config.image_size, 0.0, []
    for divisor, share in recipe.smaller:
        spent += share
        pairs.append((side // divisor, spent))
    return [*pairs, (side, 1.0)]


def changes(divisor: int, shifts: bool, random: np.random.Generator) -> Callable:
    """Return a function of a batch's images that shifts them, and halves them down to a size."""

    def change(images):
        images = shifted(images, random) if shifts else images
        for _ in range(divisor.bit_length() - 1):
            images = halve(images)
        return images

    return change


def shifted(images: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """Shift each image (B, S, S, 3) by up to an eighth of its side; edges are mirrored."""
    count, side = images.shape[:2]
    most = side // 8
    wider = np.pad(images, ((0, 0), (most, most), (most, most), (0, 0)), "reflect")
    corners = random.integers(2 * most + 1, size=(count, 2))
    crops = [
        image[top : top + side, left : left + side]
        for image, (top, left) in zip(wider, corners, strict=True)
    ]
    return np.stack(crops)


class MiddleTimes(Schedule):
    """Another schedule whose uniform times become logit-normal ones, more often in the middle.

    For training alone: time t becomes the t-quantile of sigmoid(z) with z standard normal. Esser et
    al. 2024 (arXiv:2403.03206), section 3.1, with location 0 and scale 1.
    """

    def __init__(self, schedule: Schedule):
        self.schedule = schedule

    def __call__(self, diffusion_times):
        normal = math.sqrt(2) * ops.erfinv(2 * ops.cast(diffusion_times, "float32") - 1)
        return self.schedule(ops.sigmoid(normal))


class Averages:
    """Moving averages of the network's weights, of the lengths that a recipe asks for.

    `weights` maps each length to a list of arrays. They are kept outside the training step, so the
    time they take is not counted.
    """

    def __init__(self, recipe: Recipe, model: DiffusionModel):
        self.warmup = recipe.config.ema_warmup
        self.weights = {length: _copies(model) for length in recipe.averages}

    def update(self, model: DiffusionModel, steps: int) -> None:
        """Move each average towards the weights after `steps` steps."""
        weights = [ops.convert_to_numpy(weight) for weight in model.network.weights]
        for length, averages in self.weights.items():
            kept = min(length, (1 + steps) / (10 + steps)) if self.warmup else length
            for average, weight in zip(averages, weights, strict=True):
                average *= kept
                average += (1 - kept) * weight


def _copies(model):
    return [np.array(ops.convert_to_numpy(weight)) for weight in model.network.weights]


class Budget:
    """Processor time to spend on training steps, not counting compilation."""

    def __init__(self, config: Config, seconds: float):
        self.config, self.seconds, self.spent, self.steps = config, seconds, 0.0, 0

    def run(self, model, batches, end: float, after_step: Callable) -> None:
        """Train until `end` seconds are spent; call `after_step(model, steps)` after each step."""
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
            after_step(model, self.steps)

    def learning_rate(self) -> float:
        """Return the rate: warmed up over a twentieth of the time, then a half cosine to 0."""
        share = min(1, self.spent / self.seconds)
        warmth = min(1, share / 0.05 + 0.01)
        return self.config.learning_rate * warmth * math.cos(share * math.pi / 2) ** 2


def endless(batches: Batches) -> Iterator:
    """Yield the batches of one epoch after another."""
    while True:
        yield from batches
        batches.on_epoch_end()
