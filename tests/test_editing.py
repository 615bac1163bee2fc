"""Editing: how much of a photograph is left at each strength, other names, and walks."""

import numpy as np
import pytest
from denoisers import best_denoiser, knowing, standard_noise

from diffusion.editing import redraw, rename, sdedit, walk
from diffusion.inversion import find_noise
from diffusion.latents import initial_noise, slerp
from diffusion.samplers import ddim, dpm_solver
from diffusion.schedules import OffsetCosineSchedule
from diffusion.training.building import load_model

SCHEDULE = OffsetCosineSchedule()


@pytest.fixture(scope="module")
def model(by_name):
    return load_model(by_name)


@pytest.fixture(scope="module")
def photographs(painted):
    return np.asarray(painted.images[:3])


# --- by strength ---


@pytest.mark.parametrize("kind", ["uint8", "float32"])
def test_strength_0_returns_the_photograph_to_the_bit(model, photographs, kind):
    given = photographs if kind == "uint8" else photographs.astype("float32") / np.float32(255)
    kept = redraw(model, given, strength=0)
    assert kept.dtype == np.float32
    np.testing.assert_array_equal(kept, photographs.astype("float32") / np.float32(255))
    images = standard_noise(5)
    nobody = sdedit(None, SCHEDULE, images, images=images, strength=0)
    np.testing.assert_array_equal(nobody, images)


def test_strength_1_forgets_the_photograph_and_draws_from_the_noise_alone(model, photographs):
    drawn = [redraw(model, photographs[i : i + 1], 1, 4, seed=2, labels="rose") for i in (0, 1)]
    np.testing.assert_array_equal(*drawn)
    expected = model.generate(1, 4, seed=2, labels="rose")
    np.testing.assert_array_equal(drawn[0], expected)


def test_between_them_the_images_noise_and_steps_are_those_of_the_strength():
    images, noise, seen = standard_noise(5), standard_noise(10)[5:], []
    sdedit(knowing(images, seen), SCHEDULE, noise, 20, images=images, strength=0.6)
    noise_rate, signal_rate = (float(rate) for rate in SCHEDULE(np.float32(0.6)))
    np.testing.assert_allclose(seen[0][0], signal_rate * images + noise_rate * noise, atol=1e-6)
    expected = [float(SCHEDULE(np.float32(0.6 * (1 - step / 12)))[0]) for step in range(12)]
    np.testing.assert_allclose([rate for _, rate in seen], expected, rtol=1e-5)


def test_the_weaker_the_closer_to_the_photograph():
    images, noise = 0.7 + 0.4 * standard_noise(), standard_noise(8000)[4000:]
    far = [
        np.abs(
            sdedit(best_denoiser, SCHEDULE, noise, 40, images=images, strength=s) - images
        ).mean()
        for s in (0, 0.01, 0.3, 0.6, 0.9, 1)
    ]
    assert (np.diff(far) > 0.01).all()


@pytest.mark.parametrize("strength", [0.01, 0.4, 1])
def test_any_sampler_can_draw(strength):
    images, noise = standard_noise(50), standard_noise(100)[50:]
    options = {"images": images, "strength": strength}
    drawn = sdedit(best_denoiser, SCHEDULE, noise, 40, solver=dpm_solver, **options)
    expected = sdedit(best_denoiser, SCHEDULE, noise, 400, solver=ddim, **options)
    np.testing.assert_allclose(drawn, expected, atol=0.03)


@pytest.mark.parametrize("strength", [-0.1, 1.5, float("nan")])
def test_a_strength_outside_0_and_1_is_refused(model, photographs, strength):
    with pytest.raises(ValueError, match="strength must be from 0"):
        redraw(model, photographs, strength)


# --- by name ---


def test_rename_inverts_under_one_name_and_draws_under_the_other(model, photographs):
    renamed = rename(model, photographs, "rose", "iris", 4, guidance=2.0)
    noise = find_noise(model, photographs, 4, labels="rose")
    expected = model.generate(initial_noise=noise, steps=4, labels="iris", guidance=2.0)
    np.testing.assert_array_equal(renamed, expected)
    unnamed = rename(model, photographs, None, "iris", 4, guidance=2.0)
    assert np.abs(unnamed - renamed).max() > 0.05


def test_names_that_do_not_exist_are_refused(model, photographs, trained):
    with pytest.raises(ValueError, match="did you mean rose"):
        rename(model, photographs, "rosee", "iris")
    with pytest.raises(ValueError, match="has no names"):
        rename(trained.model, photographs, None, "iris", 2)


# --- walks ---


def test_a_walk_draws_both_ends_and_the_great_circle_between_them(model):
    start, end = np.asarray(initial_noise(2, 16, seed=1))
    walked = walk(model, start, end, 5, steps=3, labels="rose")
    assert walked.shape == (5, 16, 16, 3)
    middle = slerp(start, end, 0.5)
    for index, noise in ((0, start), (2, middle), (4, end)):
        expected = model.generate(initial_noise=[noise], steps=3, labels=["rose"])[0]
        np.testing.assert_allclose(walked[index], expected, atol=0.02)


@pytest.mark.parametrize("columns", [1, 2.5])
def test_a_walk_needs_two_columns(model, columns):
    start, end = np.asarray(initial_noise(2, 16, seed=1))
    with pytest.raises(ValueError, match="columns must be"):
        walk(model, start, end, columns)
