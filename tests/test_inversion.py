"""Inversion: back to the noise, with an error of known order, and exactly."""

import numpy as np
import pytest
from denoisers import best_denoiser, standard_noise

from diffusion.flow import angles_at, ddim_angles
from diffusion.inversion import (
    chance,
    coupled_ddim,
    coupled_invert,
    find_noise,
    gaussian_check,
    invert,
)
from diffusion.labels import label_numbers
from diffusion.latents import initial_noise
from diffusion.samplers import ddim
from diffusion.schedules import CosineSchedule, OffsetCosineSchedule
from diffusion.training.building import load_model

SCHEDULE = OffsetCosineSchedule()
IMAGES = (0.7 + 0.4 * standard_noise(60)).astype("float32")  # of the denoisers' Gaussian


def curved(noisy_images, noise_rates, signal_rates):
    """A smooth denoiser that is not linear, as no network is."""
    images = best_denoiser(noisy_images, noise_rates, signal_rates)[1]
    images = images + 0.3 * noise_rates * signal_rates * np.sin(2 * noisy_images)
    return (noisy_images - signal_rates * images) / noise_rates, images


def error(denoise, steps, schedule=SCHEDULE, **options):
    """The root mean square error of images that are inverted and drawn again."""
    noise = invert(denoise, schedule, IMAGES, steps, first_iterations=60, **options)
    drawn = np.asarray(ddim(denoise, schedule, noise, steps))
    return np.sqrt(np.mean((drawn - IMAGES) ** 2))


@pytest.mark.parametrize("denoise", [best_denoiser, curved])
@pytest.mark.parametrize("schedule", [SCHEDULE, CosineSchedule()])
def test_the_error_of_plain_inversion_is_of_first_order_in_the_step(denoise, schedule):
    steps = np.array([16, 32, 64, 128, 256])
    errors = [error(denoise, count, schedule) for count in steps]
    slopes = np.diff(np.log(errors)) / np.diff(np.log(steps))
    np.testing.assert_allclose(slopes[1:], -1, atol=0.2)


def test_each_correction_leaves_a_fraction_of_the_error():
    errors = [error(curved, 20, corrections=corrections) for corrections in (0, 1, 2, 4, 8)]
    assert errors[1] < errors[0] / 3 and errors[2] < errors[1] / 3
    assert errors[0] > 0.01 and errors[-1] < 1e-5


def test_acceleration_solves_a_linear_step_at_the_second_correction():
    errors = [error(best_denoiser, 4, corrections=corrections) for corrections in (1, 2)]
    assert errors[0] > 1e-3 and errors[1] < 1e-5


def test_the_first_step_solves_for_the_noisy_image_that_is_predicted_to_be_the_image():
    lowest = ddim_angles(SCHEDULE, 20)[1]
    rates = [np.full((60, 1, 1, 1), rate, "float32") for rate in (np.sin(lowest), np.cos(lowest))]
    visited = []

    def noted(noisy_images, *rates):
        visited.append(np.asarray(noisy_images))
        return best_denoiser(noisy_images, *rates)

    invert(noted, SCHEDULE, IMAGES, 20, first_iterations=40)
    np.testing.assert_allclose(visited[0], rates[1] * IMAGES, rtol=1e-6)  # no noise at first
    np.testing.assert_allclose(best_denoiser(visited[40], *rates)[1], IMAGES, atol=1e-5)
    assert len(visited) == 40 + 19


@pytest.mark.parametrize(("corrections", "first"), [(0, 10), (2, 10), (3, 0)])
def test_the_network_is_evaluated_as_often_as_promised(corrections, first):
    seen = []
    options = {"corrections": corrections, "first_iterations": first}
    invert(best_denoiser, SCHEDULE, IMAGES, 8, on_step=lambda *step: seen.append(step), **options)
    assert len(seen) == first + 7 * (1 + corrections)


def test_ddim_angles_are_those_at_which_ddim_evaluates_and_the_image():
    seen = []

    def noted(noisy_images, noise_rates, signal_rates):
        seen.append(np.arctan2(noise_rates, signal_rates).item(0))
        return best_denoiser(noisy_images, noise_rates, signal_rates)

    ddim(noted, SCHEDULE, standard_noise(2), 5)
    np.testing.assert_allclose([*seen, 0], ddim_angles(SCHEDULE, 5)[::-1], rtol=1e-5)
    assert angles_at(SCHEDULE, [0.0])[0] > 0.3


@pytest.mark.parametrize("steps", [1, 2, 20, 50])
def test_the_coupled_pair_returns_to_the_images_within_rounding(steps):
    one, other = coupled_invert(curved, SCHEDULE, IMAGES, steps)
    drawn = coupled_ddim(curved, SCHEDULE, one, steps, partner=other)
    np.testing.assert_allclose(drawn, IMAGES, atol=2e-3 if steps == 50 else 1e-3)
    alone = np.asarray(coupled_ddim(curved, SCHEDULE, one, steps))
    assert np.abs(alone - IMAGES).max() > np.abs(np.asarray(drawn) - IMAGES).max()


def test_the_coupled_sampler_draws_what_ddim_draws_when_the_steps_are_many():
    noise = standard_noise(60)
    drawn = [np.asarray(coupled_ddim(curved, SCHEDULE, noise, steps)) for steps in (25, 100)]
    apart = [np.abs(each - np.asarray(ddim(curved, SCHEDULE, noise, 800))).max() for each in drawn]
    assert apart[1] < apart[0] / 2 and apart[1] < 0.05


def test_gaussian_check_finds_no_difference_in_drawn_noise_and_any_in_other():
    noise = np.asarray(initial_noise(40, 32, seed=3))
    found, expected = gaussian_check(noise), chance(noise.shape)
    for name, middle in (("mean", 0), ("variance", 1), ("correlation", 0)):
        deviations = (found[name] - middle) / expected[name]
        assert np.abs(deviations).max() < 4.5 and 0.75 < deviations.std() < 1.3
    smooth = (noise + np.roll(noise, 1, axis=1) + np.roll(noise, 1, axis=2)) / np.sqrt(3)
    correlations = gaussian_check(0.5 + 2 * smooth)
    np.testing.assert_allclose(correlations["correlation"], 1 / 3, atol=0.06)
    np.testing.assert_allclose(correlations["mean"], 0.5, atol=0.2)
    np.testing.assert_allclose(correlations["variance"], 4, rtol=0.15)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"steps": 0}, "steps must be"),
        ({"corrections": -1}, "corrections must be"),
        ({"first_iterations": 1.5}, "first_iterations must be"),
    ],
)
def test_wrong_numbers_are_refused(options, words):
    with pytest.raises(ValueError, match=words):
        invert(best_denoiser, SCHEDULE, IMAGES, **options)


@pytest.mark.parametrize("mixing", [0.5, 1.1])
def test_a_mixing_that_cannot_be_undone_is_refused(mixing):
    for function in (coupled_ddim, coupled_invert):
        with pytest.raises(ValueError, match="mixing must be"):
            function(best_denoiser, SCHEDULE, IMAGES, 4, mixing=mixing)


# --- with a model ---


def pixels(images, others):
    """The root mean square difference, of 1."""
    return np.sqrt(np.mean((np.float32(images) - np.float32(others)) ** 2))


def test_a_models_noise_is_found_under_its_labels_and_guidance(by_name, painted):
    model, images = load_model(by_name), painted.images[:2]
    options = {"labels": ["rose", "iris"], "guidance": 1.5}
    noise = find_noise(model, images, 4, first_iterations=2, **options)
    numbers = label_numbers(["rose", "iris"], model.class_names)
    denoise = model.guided(model.denoise, numbers, 1.5)
    expected = invert(denoise, model.schedule, model.normalize(images), 4, 2, 2)
    np.testing.assert_allclose(noise, expected, rtol=0.1, atol=0.02)  # rounding may differ
    assert np.abs(noise - find_noise(model, images / 255, 4, first_iterations=2)).max() > 0.1


def test_a_model_refuses_images_of_another_shape_and_names_it_does_not_know(trained):
    model = trained.model
    with pytest.raises(ValueError, match=r"\(B, 16, 16, 3\) of the model, got \(16, 16, 3\)"):
        find_noise(model, np.zeros((16, 16, 3), "uint8"))
    with pytest.raises(ValueError, match="has no names"):
        find_noise(model, np.zeros((1, 16, 16, 3), "uint8"), labels="rose")
    with pytest.raises(ValueError, match="values from -1 to 2"):
        find_noise(model, np.linspace(-1, 2, 768).reshape(1, 16, 16, 3))


@pytest.mark.slow
def test_photographs_the_model_never_saw_come_back(real_flowers_dir, tmp_path):
    from diffusion.data import load_flowers
    from diffusion.support.paths import SHIPPED_BY_NAME

    flowers = load_flowers(real_flowers_dir, splits=("valid",), cache_dir=tmp_path, progress=False)
    images = np.asarray(flowers.images[::300])
    model = load_model(SHIPPED_BY_NAME)
    errors = {}
    for corrections, steps in ((0, 10), (0, 20), (2, 20)):
        noise = find_noise(model, images, steps, corrections)
        again = model.generate(initial_noise=noise, steps=steps)
        errors[corrections, steps] = pixels(again, images / 255)
    assert errors[2, 20] < 0.04 and errors[2, 20] < errors[0, 20] / 2
    assert errors[0, 20] < errors[0, 10]
