"""The library against the chapter's listings: same weights, same noise, same result."""

import keras
import numpy as np
import pytest
from conftest import ON_TENSORFLOW

if not ON_TENSORFLOW:
    pytest.skip("the chapter is written in TensorFlow", allow_module_level=True)

import reference
import tensorflow as tf

from diffusion.model import DiffusionModel
from diffusion.schedules import OffsetCosineSchedule
from diffusion.unet import build_unet

pytestmark = pytest.mark.slow
SIZE, BATCH = 16, 4


@pytest.fixture(scope="module")
def draws():
    """Five batches of images, noises and times."""
    random, shape = np.random.default_rng(7), (BATCH, SIZE, SIZE, 3)
    return [
        (
            random.random(shape, "float32"),
            random.standard_normal(shape, "float32"),
            random.random((BATCH, 1, 1, 1), "float32"),
        )
        for _ in range(5)
    ]


class Replaying(DiffusionModel):
    """The library's model with given noises and times, one batch at a time."""

    def sample_noises_and_times(self, shape):
        return self.replay

    def take(self, images, noises, times):
        self.replay = (tf.constant(noises), tf.constant(times))
        return self.train_on_batch(images)


def pair(draws, reduction="mean"):
    """The chapter's model and the library's, from the same weights and statistics."""
    keras.utils.set_random_seed(3)
    architecture = SIZE, (8, 12, 16), 2, 8
    network = build_unet(*architecture)
    # The last layer starts at zero, so in the first step no gradient would reach the others.
    kernel = network.get_layer("pred_noises").kernel
    kernel.assign(keras.random.normal(kernel.shape, stddev=0.1))
    model = Replaying(network, OffsetCosineSchedule())
    model.compile(
        optimizer=keras.optimizers.AdamW(learning_rate=1e-3, weight_decay=1e-4),
        loss="mean_absolute_error",
        run_eagerly=True,
    )
    pictures = np.concatenate([images for images, _, _ in draws])
    model.adapt(pictures)
    chapter_network = reference.build_unet(*architecture)
    chapter_network.set_weights(network.get_weights())
    mean, variance = pictures.mean(axis=(0, 1, 2)), pictures.var(axis=(0, 1, 2))
    return model, reference.Reference(chapter_network, mean, variance, reduction)


@pytest.mark.parametrize("steps", [1, 5])
def test_training_steps_agree_in_loss_and_in_every_weight_and_average(draws, steps):
    model, chapter = pair(draws)
    start = [weight.copy() for weight in model.network.get_weights()]
    for batch in draws[:steps]:
        model.reset_metrics()
        np.testing.assert_allclose(model.take(*batch), chapter.train_step(*batch), rtol=1e-4)
    for name in ("network", "ema_network"):
        ours, theirs = getattr(model, name), getattr(chapter, name)
        for variable, before, a, b in zip(
            ours.weights, start, ours.get_weights(), theirs.get_weights(), strict=True
        ):
            # Adam divides each gradient by its own size, so rounding errors of gradients near zero
            # become part of a step. Compare with the distance that each tensor has moved.
            moved, apart = np.linalg.norm(a - before), np.linalg.norm(a - b)
            assert moved > 0, f"{name} {variable.path} did not move"
            assert apart < 0.01 * moved, f"{name} {variable.path}: {apart} apart, moved {moved}"


def test_the_books_loss_is_a_sum_whose_gradient_is_as_many_times_ours_as_there_are_pixels(draws):
    (_, mean), (_, total) = pair(draws), pair(draws, "sum")
    (mean_loss, ours), (total_loss, books) = (each.gradients(*draws[0]) for each in (mean, total))
    assert float(mean_loss) == float(total_loss)  # both report the mean
    for one, other in zip(ours, books, strict=True):
        one, other = BATCH * SIZE * SIZE * np.asarray(one), np.asarray(other)
        np.testing.assert_allclose(one, other, atol=1e-5 * np.abs(other).max(), rtol=1e-4)
    # Listing 8-10: Keras's function averages over colours alone.
    images, noises, _ = draws[0]
    assert keras.losses.mean_absolute_error(noises, images).shape == (BATCH, SIZE, SIZE)


def test_ddim_from_the_same_noise_agrees(draws):
    model, chapter = pair(draws)
    noise = tf.random.stateless_normal((3, SIZE, SIZE, 3), (1, 1))
    for steps in (1, 2, 20):
        theirs = chapter.reverse_diffusion(noise, steps)
        # This network is untrained, and the first step divides by a signal rate of 0.02.
        tolerance = 1e-4 * np.abs(theirs).max()
        ours = model.reverse_diffusion(noise, steps)
        np.testing.assert_allclose(ours, theirs, atol=tolerance, rtol=0)
        drawn = model.generate(initial_noise=noise, steps=steps)
        np.testing.assert_allclose(drawn, chapter.generate(noise, steps), atol=1e-3)


def test_the_book_network_is_the_chapters_layer_for_layer():
    ours, theirs = build_unet(), reference.build_unet()
    assert ours.count_params() == theirs.count_params() == 1_953_507
    assert [tuple(w.shape) for w in ours.weights] == [tuple(w.shape) for w in theirs.weights]
