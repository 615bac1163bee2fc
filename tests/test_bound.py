"""The bound against what is known: densities, and the whole chain as a matrix."""

import numpy as np
import pytest
from denoisers import Mixture, even_chain

from diffusion.bound import (
    VARIANCES,
    noise_error_weights,
    step_terms,
    step_variances,
    variational_bound,
)
from diffusion.ddpm import Chain, cosine_betas
from diffusion.likelihoods import PixelLikelihood, gaussian_kl, gaussian_log_likelihood

ONE_GAUSSIAN = Mixture([[[[0.7, 0.7, 0.7]]]], 0.4)
THREE_COLOURS = Mixture([[[[1, -1, 0.5]]], [[[-1, 0.3, 1]]], [[[0, 1, -1]]]], 0.3, [0.5, 0.3, 0.2])
TWO_IMAGES = Mixture(np.random.default_rng(0).normal(size=(2, 2, 2, 3)), 0.5)


def bounded(chain, data, images, **options):
    """The bound of continuous images with the data's ideal denoiser."""
    denoise = options.pop("denoise", None) or data.denoise
    return variational_bound(chain, denoise, images, gaussian_log_likelihood, **options)


def gaps(data, chain, count=400, seed=0, **options):
    """The bound minus the truth for the same images, (B,), so that their common part cancels."""
    images = data.sample(count, seed)
    return bounded(chain, data, images, seed=seed + 1000, **options).totals - data.bits(images)


@pytest.mark.parametrize("variance", VARIANCES)
@pytest.mark.parametrize("data", [ONE_GAUSSIAN, THREE_COLOURS, TWO_IMAGES])
def test_the_bound_is_above_the_truth_for_every_seed_and_comes_close(data, variance):
    for seed in range(4):
        above = gaps(data, even_chain(15), count=4000, seed=seed, variance=variance)
        assert above.mean() > 4 * above.std() / np.sqrt(len(above))
    close = gaps(data, even_chain(200), count=2000, variance=variance)
    error = close.std() / np.sqrt(len(close))
    assert -3 * error < close.mean() < 0.3 * above.mean()
    assert error < 0.1 * above.mean()


def whole_chain_by_matrices(chain, variance, decoder_variance, mean, deviation):
    """The expected bound for Gaussian data, in bits, from KL(q || p) of x_0 .. x_T jointly.

    q and p are Gaussians of T + 1 dimensions, and no term is computed by itself: E[bound] is
    KL( q(x_0 .. x_T) || p(x_0 .. x_T) ) plus the entropy of the data.
    """
    signals = np.sqrt(np.append(1, chain.alpha_bars))
    variances = signals**2 * deviation**2 + 1 - signals**2
    q_mean = signals * mean
    order = np.arange(len(signals))
    early, late = np.minimum.outer(order, order), np.maximum.outer(order, order)
    q_cov = signals[late] / signals[early] * variances[early]

    count = len(signals)
    back, shift, spread = np.zeros((count, count)), np.zeros(count), np.ones(count)
    for t in range(1, count):
        gain = signals[t] * deviation**2 / variances[t]  # E[x_0 | x_t] = mean + gain (x_t - ...)
        if t == 1:
            from_image, from_noisy, spread[0] = 1.0, 0.0, decoder_variance
        else:  # the covariance of (x_{t-1}, x_t) given x_0
            noise = 1 - signals**2
            cross = signals[t] / signals[t - 1] * noise[t - 1]
            from_noisy = cross / noise[t]
            from_image = signals[t - 1] - from_noisy * signals[t]
            small = noise[t - 1] - cross**2 / noise[t]
            large = 1 - (signals[t] / signals[t - 1]) ** 2
            spread[t - 1] = small if variance == "small" else large
        back[t - 1, t] = from_noisy + from_image * gain
        shift[t - 1] = from_image * (mean - gain * q_mean[t])
    solve = np.linalg.inv(np.eye(count) - back)
    p_mean, p_cov = solve @ shift, solve @ np.diag(spread) @ solve.T
    kl = 0.5 * (
        np.trace(np.linalg.solve(p_cov, q_cov))
        + (p_mean - q_mean) @ np.linalg.solve(p_cov, p_mean - q_mean)
        - count
        + np.linalg.slogdet(p_cov)[1]
        - np.linalg.slogdet(q_cov)[1]
    )
    return (kl + 0.5 * np.log(2 * np.pi * np.e * deviation**2)) / np.log(2)


@pytest.mark.parametrize("variance", VARIANCES)
@pytest.mark.parametrize("steps", [1, 2, 7])
def test_the_terms_add_up_to_the_kl_of_the_whole_chain_by_matrices(steps, variance):
    chain = Chain(np.linspace(0.1, 0.6, steps))
    data = Mixture(np.full((1, 4, 4, 3), 0.7), 0.4)
    images = data.sample(1500, seed=0)  # also the bound's seed, whose noises must differ
    found = bounded(chain, data, images, variance=variance, decoder_variance=0.15)
    known = whole_chain_by_matrices(chain, variance, 0.15, 0.7, 0.4)
    assert found.standard_error < 0.01
    assert abs(found.mean - known) < 4 * found.standard_error


@pytest.mark.parametrize("variance", VARIANCES)
def test_a_step_term_is_the_weighted_error_of_the_noise(variance):
    chain, seen = Chain(cosine_betas(30)), {}

    def denoise(noisy_images, noise_rates, signal_rates):
        pred_noises = np.tanh(noisy_images)
        seen.update(noisy=noisy_images, rates=(noise_rates, signal_rates), noises=pred_noises)
        return pred_noises, (noisy_images - noise_rates * pred_noises) / signal_rates

    images = THREE_COLOURS.sample(50, seed=1)
    for step in (1, 10, 28):
        found = step_terms(chain, denoise, images, step, variance=variance, seed=2)
        noise_rates, signal_rates = seen["rates"]
        noises = (seen["noisy"] - signal_rates * images) / noise_rates
        errors = np.mean((noises - seen["noises"]) ** 2, axis=(1, 2, 3))
        best, taken = chain.posterior_variances[step], step_variances(chain, variance)[step]
        constant = gaussian_kl(0, np.log(best), 0, np.log(taken))
        known = noise_error_weights(chain, variance)[step - 1] * errors + constant
        np.testing.assert_allclose(found * np.log(2), known, rtol=2e-4)


@pytest.mark.slow
@pytest.mark.parametrize("draws", [1, 20])
def test_drawn_steps_estimate_the_full_sum_without_bias(draws):
    chain, images = even_chain(12), THREE_COLOURS.sample(30, seed=0)

    def means(repeats, **options):
        given = chain, THREE_COLOURS, images
        return np.array([bounded(*given, seed=i, **options).mean for i in range(repeats)])

    full, drawn = means(60), means(300, draws=draws)
    error = np.hypot(full.std() / np.sqrt(len(full)), drawn.std() / np.sqrt(len(drawn)))
    assert error < 0.04 * full.mean()
    assert abs(full.mean() - drawn.mean()) < 4 * error


@pytest.mark.parametrize("draws", [1, 25])
def test_each_step_is_drawn_equally_often(draws):
    found = bounded(even_chain(11), ONE_GAUSSIAN, np.zeros((2000, 1, 1, 3)), draws=draws)
    counts = np.bincount(found.steps.ravel(), minlength=11)[1:]
    assert counts.sum() == 2000 * draws
    np.testing.assert_allclose(counts, 200 * draws, rtol=0.25)


@pytest.mark.parametrize("draws", [None, 2])
def test_the_standard_error_is_the_spread_of_the_mean_over_fresh_images(draws):
    chain = even_chain(10)
    found = [
        bounded(chain, THREE_COLOURS, THREE_COLOURS.sample(40, seed), draws=draws, seed=seed)
        for seed in range(200)
    ]
    spread = np.std([bound.mean for bound in found])
    assert np.mean([bound.standard_error for bound in found]) == pytest.approx(spread, rel=0.15)


def test_a_trained_network_is_bounded_in_bits_of_its_pixels(trained, painted):
    model = trained.model
    images = model.normalize(painted.images[:4])
    chain = Chain.from_schedule(model.schedule, 10)

    def bound(images, seed=0):
        likelihood = PixelLikelihood.of(model.normalizer)
        return variational_bound(chain, model.denoise, images, likelihood, seed=seed)

    once, again, other = bound(images), bound(images), bound(images, seed=1)
    assert once.totals.shape == (4,) and (once.totals > 0).all()
    assert once.mean == again.mean
    assert (once.likelihood != other.likelihood).all()
    assert (once.step_terms != other.step_terms).all()
    assert once.prior.mean() < 0.01 < once.likelihood.mean()
    np.testing.assert_allclose(once.totals, once.prior + once.step_terms.sum(0) + once.likelihood)
    assert np.isnan(bound(images[:1]).standard_error)
