"""Samplers against closed forms: a known image, and Gaussian data."""

import keras
import numpy as np
import pytest
from denoisers import DEVIATION, MEAN, best_denoiser, knowing, standard_noise

from diffusion.ddpm import Chain
from diffusion.samplers import SAMPLERS, ancestral, ddim
from diffusion.schedules import CosineSchedule, LinearSchedule, OffsetCosineSchedule

OFFSET = OffsetCosineSchedule()


def known_image_and_noise():
    image = np.random.default_rng(2).normal(size=(2, 4, 4, 3)).astype("float32")
    return image, np.random.default_rng(3).normal(size=image.shape).astype("float32")


@pytest.mark.parametrize(
    ("name", "options"), [*((name, {}) for name in SAMPLERS), ("ddim", {"eta": 1.0, "seed": 1})]
)
def test_gaussian_data_come_out_with_their_mean_and_variance(name, options):
    noise = standard_noise()
    images = np.asarray(SAMPLERS[name](best_denoiser, CosineSchedule(), noise, 200, **options))
    assert abs(images.mean() - MEAN) < 0.02
    assert abs(images.std() - DEVIATION) < 0.02


@pytest.mark.parametrize("name", SAMPLERS)
@pytest.mark.parametrize("steps", [1, 2, 3, 4, 9])
def test_steps_is_the_number_of_evaluations_and_on_step_sees_each(name, steps):
    (image, noise), evaluated, seen = known_image_and_noise(), [], []
    images = SAMPLERS[name](
        knowing(image, evaluated), OFFSET, noise, steps, on_step=lambda *step: seen.append(step[0])
    )
    np.testing.assert_allclose(images, image, atol=1e-6)
    assert len(evaluated) == steps - (name == "heun" and steps % 2 == 0)
    assert seen == list(range(len(evaluated)))
    assert evaluated[0][1] == pytest.approx(np.sqrt(1 - 0.02**2), abs=1e-6)


@pytest.mark.parametrize("eta", [0.0, 1.0])
def test_every_step_keeps_the_noise_that_the_schedule_says_whatever_the_seed(eta):
    zeros, seen = np.zeros((3000, 1, 1, 3), "float32"), []
    start = keras.random.normal(zeros.shape, seed=5)  # the fresh noise must differ from it
    ddim(knowing(zeros, seen), OFFSET, start, 20, eta=eta, seed=5)
    np.testing.assert_allclose([noisy.std() / rate for noisy, rate in seen], 1, atol=0.04)


def test_the_same_noise_and_seed_give_the_same_images():
    generator = keras.random.SeedGenerator(4)
    one, two, other, first, second = (
        np.asarray(ddim(best_denoiser, OFFSET, standard_noise(8), 10, eta=1.0, seed=seed))
        for seed in (4, 4, 6, generator, generator)
    )
    np.testing.assert_array_equal(one, two)
    assert np.abs(one - other).max() > 0.1
    assert np.abs(first - second).max() > 0.1  # a generator moves on


@pytest.mark.parametrize("schedule", [OFFSET, LinearSchedule()], ids=repr)
def test_ancestral_sampling_of_the_small_variance_is_ddim_with_eta_one(schedule):
    noise = standard_noise(50)
    by_chain = np.asarray(ancestral(best_denoiser, schedule, noise, 12, seed=4))
    by_ddim = np.asarray(ddim(best_denoiser, schedule, noise, 12, eta=1.0, seed=4))
    np.testing.assert_allclose(by_chain, by_ddim, atol=2e-4)


# At 600 steps, times 1/600 and 2/600 are free of noise.
@pytest.mark.parametrize("steps", [6, pytest.param(600, marks=pytest.mark.slow)])
@pytest.mark.parametrize(
    "sample",
    [
        lambda *given: ddim(*given),
        lambda *given: ddim(*given, eta=1.0, seed=1),
        lambda *given: ancestral(*given, seed=1),
        lambda *given: ancestral(*given, variance="large", seed=1),
    ],
)
def test_more_steps_than_a_chain_has_give_finite_images(sample, steps):
    chain, evaluated = Chain([0.5, 0.97]).as_schedule(), []

    def denoise(noisy_images, noise_rates, signal_rates):
        evaluated.append(noise_rates)
        return best_denoiser(noisy_images, noise_rates, signal_rates)

    images = np.asarray(sample(denoise, chain, standard_noise(2000), steps))
    assert len(evaluated) == steps
    assert abs(images.mean() - MEAN) < 0.1 and 0.1 < images.std() < 0.8
