"""DDIM against closed forms: a known picture, and Gaussian data."""

import keras
import numpy as np
import pytest

from diffusion.flow import SPACINGS, solver_angles
from diffusion.samplers import (
    SAMPLERS,
    adams_bashforth,
    ancestral,
    ddim,
    dpm_solver,
    heun,
    thresholded,
)
from diffusion.schedules import CosineSchedule, LinearSchedule, OffsetCosineSchedule

MEAN, DEVIATION = 0.7, 0.4  # of the Gaussian data: every pixel by itself


def best_denoiser(noisy_images, noise_rates, signal_rates):
    """Return the posterior means for data N(MEAN, DEVIATION^2): no network can do better."""
    variances = signal_rates**2 * DEVIATION**2 + noise_rates**2
    surprise = (noisy_images - signal_rates * MEAN) / variances
    return noise_rates * surprise, MEAN + signal_rates * DEVIATION**2 * surprise


def exact_flow(schedule, noise, end):
    """Where the deterministic flow carries noise from time 1 to `end`, and the image seen there.

    For Gaussian data the flow only shifts and stretches: it keeps each point's distance from the
    mean, measured in standard deviations of the moment.
    """

    def moments(time):
        noise_rates, signal_rates = (np.float64(rate) for rate in schedule(np.float32(time)))
        variance = signal_rates**2 * DEVIATION**2 + noise_rates**2
        return signal_rates * MEAN, variance, noise_rates, signal_rates

    start_mean, start_variance, _, _ = moments(1.0)
    mean, variance, noise_rates, signal_rates = moments(end)
    point = mean + np.sqrt(variance / start_variance) * (noise - start_mean)
    return np.asarray(best_denoiser(point, noise_rates, signal_rates)[1])


def standard_noise(count=4000):
    return np.random.default_rng(0).normal(size=(count, 1, 1, 3)).astype("float32")


@pytest.mark.parametrize("name", SAMPLERS)
def test_gaussian_data_come_out_with_their_mean_and_variance(name):
    images = np.asarray(SAMPLERS[name](best_denoiser, CosineSchedule(), standard_noise(), 200))
    assert abs(images.mean() - MEAN) < 0.02
    assert abs(images.std() - DEVIATION) < 0.02


def test_with_fresh_noise_the_mean_and_variance_are_right_too():
    noise = standard_noise()
    images = np.asarray(ddim(best_denoiser, CosineSchedule(), noise, 200, eta=1.0, seed=1))
    assert abs(images.mean() - MEAN) < 0.015
    assert abs(images.std() - DEVIATION) < 0.02
    # What comes out no longer follows from the start alone.
    assert abs(np.corrcoef(images.ravel(), noise.ravel())[0, 1]) < 0.9


@pytest.mark.parametrize("schedule", [CosineSchedule(), OffsetCosineSchedule()])
def test_the_error_of_ddim_halves_when_the_steps_double(schedule):
    noise = standard_noise(50)
    errors = []
    for steps in (50, 100, 200, 400):
        images = np.asarray(ddim(best_denoiser, schedule, noise, steps))
        # The last image is seen one step before time 0.
        errors.append(np.abs(images - exact_flow(schedule, noise, 1 / steps)).mean())
    orders = np.log2(np.array(errors[:-1]) / errors[1:])
    assert ((orders > 0.85) & (orders < 1.2)).all(), orders


@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("steps", [1, 2, 7, 50])
def test_a_denoiser_that_knows_the_picture_returns_it_in_any_number_of_steps(steps, eta):
    picture = np.random.default_rng(2).normal(size=(2, 4, 4, 3)).astype("float32")

    def knows(noisy_images, noise_rates, signal_rates):
        return (noisy_images - signal_rates * picture) / noise_rates, picture

    noise = np.random.default_rng(3).normal(size=picture.shape).astype("float32")
    images = ddim(knows, OffsetCosineSchedule(), noise, steps, eta=eta, seed=0)
    np.testing.assert_allclose(images, picture, atol=1e-6)


def test_every_step_but_the_last_keeps_noise_and_signal_in_the_schedules_proportion():
    picture = np.zeros((2000, 1, 1, 3), "float32")

    def knows(noisy_images, noise_rates, signal_rates):
        return (noisy_images - signal_rates * picture) / noise_rates, picture

    for eta in (0.0, 1.0):
        deviations = []
        ddim(
            knows,
            OffsetCosineSchedule(),
            standard_noise(2000),
            10,
            eta=eta,
            seed=5,
            on_step=lambda step, noisy, noises, images, into=deviations: into.append(
                float(np.std(noisy))
            ),
        )
        expected = OffsetCosineSchedule()(1 - np.arange(10, dtype="float32") / 10)[0]
        np.testing.assert_allclose(deviations, expected, rtol=0.03)


def test_at_eta_one_each_step_draws_as_much_fresh_noise_as_the_posterior_of_ddpm():
    noisy = []

    def knows(noisy_images, noise_rates, signal_rates):
        noisy.append(np.asarray(noisy_images))
        return noisy_images / noise_rates, np.zeros_like(noisy_images)

    schedule = OffsetCosineSchedule()
    ddim(knows, schedule, standard_noise(20000), 8, eta=1.0, seed=3)
    alpha_bars = np.asarray(schedule(1 - np.arange(8, dtype="float32") / 8)[1]) ** 2
    for step in range(7):
        before, after = noisy[step].ravel(), noisy[step + 1].ravel()
        fresh = after - before * (before @ after) / (before @ before)  # what does not come along
        # Ho et al. 2020, eq. 7: the variance of q(x_{t-1} | x_t, x_0).
        now, then = alpha_bars[step], alpha_bars[step + 1]
        posterior_variance = (1 - then) / (1 - now) * (1 - now / then)
        np.testing.assert_allclose(fresh.var(), posterior_variance, rtol=0.03)


def test_fresh_noise_is_fresh_even_if_the_start_was_drawn_from_the_same_seed():
    picture = np.zeros((3000, 1, 1, 3), "float32")

    def knows(noisy_images, noise_rates, signal_rates):
        deviations.append(float(np.std(noisy_images)) / float(noise_rates[0, 0, 0, 0]))
        return (noisy_images - signal_rates * picture) / noise_rates, picture

    deviations = []
    start = keras.random.normal(picture.shape, seed=0)
    ddim(knows, OffsetCosineSchedule(), start, 20, eta=1.0, seed=0)
    np.testing.assert_allclose(deviations, 1, atol=0.04)


def test_the_same_noise_and_seed_give_the_same_images():
    noise = standard_noise(8)
    one, two = (
        ddim(best_denoiser, OffsetCosineSchedule(), noise, 10, eta=1.0, seed=4) for _ in range(2)
    )
    np.testing.assert_array_equal(one, two)
    other = ddim(best_denoiser, OffsetCosineSchedule(), noise, 10, eta=1.0, seed=6)
    assert np.abs(np.asarray(one) - np.asarray(other)).max() > 0.1
    generator = keras.random.SeedGenerator(4)
    first = ddim(best_denoiser, OffsetCosineSchedule(), noise, 10, eta=1.0, seed=generator)
    second = ddim(best_denoiser, OffsetCosineSchedule(), noise, 10, eta=1.0, seed=generator)
    assert np.abs(np.asarray(first) - np.asarray(second)).max() > 0.1  # a generator goes on


@pytest.mark.parametrize(("options", "value"), [({"steps": 0}, "0"), ({"eta": 1.5}, "1.5")])
def test_numbers_out_of_range_are_named(options, value):
    with pytest.raises(ValueError, match=value):
        ddim(best_denoiser, CosineSchedule(), standard_noise(1), **options)


@pytest.mark.parametrize("spacing", SPACINGS)
@pytest.mark.parametrize(
    ("sampler", "options", "order"),
    [
        (heun, {}, 2),
        (adams_bashforth, {"order": 1}, 1),
        (adams_bashforth, {"order": 2}, 2),
        (adams_bashforth, {"order": 3}, 3),
        (adams_bashforth, {"order": 4}, 4),
        (dpm_solver, {"order": 1}, 1),
        (dpm_solver, {}, 2),
    ],
)
def test_a_solver_converges_to_the_exact_flow_at_its_order(sampler, options, order, spacing):
    schedule, noise = OffsetCosineSchedule(), standard_noise(50)
    exact = exact_flow(schedule, noise, 0.0)
    errors = []
    for steps in (17, 33, 65):  # twice the steps, and the question at the end
        images = sampler(best_denoiser, schedule, noise, steps, spacing=spacing, **options)
        errors.append(np.abs(np.asarray(images, "float64") - exact).mean())
    orders = np.log2(np.array(errors[:-1]) / errors[1:])
    assert (orders > order - 0.25).all() and errors[-1] < 50 * 65.0**-order, (orders, errors)


def test_the_first_order_of_dpm_solver_is_ddim():
    """Lu et al. 2022, section 4: where the chapter's sampler asks, both give the same."""
    whole, steps = OffsetCosineSchedule(), 8

    def schedule(times):  # ddim asks at times 1 to 1 / steps
        return whole(1 / steps + times * (1 - 1 / steps))

    noise = standard_noise(50)
    ours = dpm_solver(best_denoiser, schedule, noise, steps, order=1, spacing="time")
    np.testing.assert_allclose(ours, ddim(best_denoiser, whole, noise, steps), atol=1e-5)


@pytest.mark.parametrize("name", SAMPLERS)
@pytest.mark.parametrize("steps", [1, 2, 3, 4, 9])
def test_steps_are_how_often_the_network_is_asked_and_on_step_sees_each(name, steps):
    picture = np.random.default_rng(2).normal(size=(2, 4, 4, 3)).astype("float32")
    asked, seen = [], []

    def knows(noisy_images, noise_rates, signal_rates):
        asked.append(float(noise_rates[0, 0, 0, 0]))
        return (noisy_images - signal_rates * picture) / noise_rates, picture

    noise = np.random.default_rng(3).normal(size=picture.shape).astype("float32")
    images = SAMPLERS[name](
        knows, OffsetCosineSchedule(), noise, steps, on_step=lambda *step: seen.append(step[0])
    )
    np.testing.assert_allclose(images, picture, atol=1e-6)
    assert len(asked) == steps - (name == "heun" and steps % 2 == 0)
    assert seen == list(range(len(asked)))
    assert asked[0] == pytest.approx(np.sqrt(1 - 0.02**2), abs=1e-6)


@pytest.mark.parametrize(
    ("sampler", "options", "words"),
    [
        (heun, {"steps": 0}, "steps must be a whole number of at least 1, got 0"),
        (heun, {"spacing": "even"}, "no spacing 'even': choose one of log_snr, time"),
        (adams_bashforth, {"order": 5}, "order must be 1, 2, 3 or 4, got 5"),
        (dpm_solver, {"order": 3}, "order must be 1 or 2, got 3"),
    ],
)
def test_a_solver_names_what_it_cannot_do(sampler, options, words):
    with pytest.raises(ValueError, match=words):
        sampler(best_denoiser, OffsetCosineSchedule(), standard_noise(2), **options)


@pytest.mark.parametrize("schedule", [OffsetCosineSchedule(), CosineSchedule()])
def test_the_grid_goes_from_noise_to_picture_evenly_in_what_it_is_told(schedule):
    by_time = solver_angles(schedule, 9, "time")
    by_log_snr = solver_angles(schedule, 9, "log_snr")
    # Both schedules turn at a constant speed, so even in time is even in the angle.
    np.testing.assert_allclose(np.diff(by_time[1:-1], n=2), 0, atol=1e-6)
    np.testing.assert_allclose(np.diff(np.log(np.tan(by_log_snr)), n=2), 0, atol=1e-9)
    for angles in (by_time, by_log_snr):
        ends = [np.float64(schedule(np.float32(time))[0]) for time in (1, 0)]
        np.testing.assert_allclose(np.sin(angles[[0, -1]]), np.clip(ends, 1e-3, 1), atol=1e-5)


@pytest.mark.parametrize("schedule", [OffsetCosineSchedule(), LinearSchedule()])
def test_ancestral_sampling_of_the_small_variance_is_ddim_with_eta_one(schedule):
    noise = standard_noise(50)
    by_chain = np.asarray(ancestral(best_denoiser, schedule, noise, 12, seed=4))
    by_ddim = np.asarray(ddim(best_denoiser, schedule, noise, 12, eta=1.0, seed=4))
    np.testing.assert_allclose(by_chain, by_ddim, atol=2e-4)


def test_the_two_variances_are_right_for_a_single_picture_and_for_noise():
    """Ho et al. 2020, section 3.2: each is exact, in however few steps, for one kind of data."""

    def knows_noise(noisy_images, noise_rates, signal_rates):  # data N(0, 1)
        return noise_rates * noisy_images, signal_rates * noisy_images

    def knows_zero(noisy_images, noise_rates, signal_rates):  # data 0, and nothing else
        return noisy_images / noise_rates, 0 * noisy_images

    schedule = OffsetCosineSchedule()
    rates = np.asarray(schedule(1 - np.arange(5, dtype="float32") / 5)[0])
    for variance, denoise, deviations in (
        ("large", knows_noise, np.ones(5)),
        ("small", knows_zero, rates),
    ):
        seen = []
        ancestral(
            denoise,
            schedule,
            standard_noise(40_000) * deviations[0].astype("float32"),
            5,
            variance,
            seed=1,
            on_step=lambda step, noisy, *_, into=seen: into.append(float(np.std(noisy))),
        )
        np.testing.assert_allclose(seen, deviations, rtol=0.01)


def test_thresholding_agrees_with_its_definition_pixel_by_pixel():
    rng = np.random.default_rng(0)
    images = rng.normal(size=(3, 4, 4, 3)).astype("float32") * [[[[0.2]]], [[[1]]], [[[4]]]]
    low, high = np.array([-1.0, -1.5, -0.5]), np.array([1.0, 0.5, 2.5])

    def denoise(noisy_images, noise_rates, signal_rates):
        return rng.normal(size=images.shape), images.astype("float32")

    noisy = rng.normal(size=images.shape).astype("float32")
    noises, kept = thresholded(denoise, low, high, 0.9)(noisy, 0.6, 0.8)
    for image, got in zip(images, np.asarray(kept), strict=True):
        pixels = 2 * (image - low) / (high - low) - 1
        width = max(1, np.quantile(np.abs(pixels), 0.9))
        expected = np.clip(pixels, -width, width) / width
        np.testing.assert_allclose(got, low + (expected + 1) / 2 * (high - low), atol=1e-5)
    assert (np.asarray(kept) >= low - 1e-5).all() and (np.asarray(kept) <= high + 1e-5).all()
    np.testing.assert_allclose(kept[0], images[0], atol=1e-6)  # it was within the range
    np.testing.assert_allclose(0.8 * np.asarray(kept) + 0.6 * np.asarray(noises), noisy, atol=1e-5)


def test_a_model_thresholds_by_the_range_of_its_own_pictures(trained):
    seen = []
    trained.model.generate(
        4,
        5,
        seed=0,
        threshold=1.0,
        on_step=lambda step, noisy, noises, images: seen.append(np.asarray(images)),
    )
    normalizer = trained.model.normalizer
    pixels = np.stack(seen) * np.sqrt(np.asarray(normalizer.variance)) + np.asarray(normalizer.mean)
    assert pixels.min() > -1e-5 and pixels.max() < 1 + 1e-5
    free = trained.model.generate(4, 5, seed=0)
    assert np.abs(free - trained.model.generate(4, 5, seed=0, threshold=0.5)).max() > 0.01


@pytest.mark.parametrize("percentile", [0, -1, 1.5])
def test_a_bad_threshold_is_named(percentile):
    with pytest.raises(ValueError, match=f"threshold must be above 0 .* got {percentile}"):
        thresholded(best_denoiser, -1, 1, percentile)


def test_a_bad_variance_is_named_with_the_choices():
    with pytest.raises(ValueError, match="no variance 'huge': choose one of small, large"):
        ancestral(best_denoiser, CosineSchedule(), standard_noise(2), 3, variance="huge")
