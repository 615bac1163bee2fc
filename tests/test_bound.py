"""The bound against what is known: densities, Bayes on a grid, the whole chain as a matrix."""

import numpy as np
import pytest
from denoisers import Mixture, even_chain
from scipy import integrate, stats

from diffusion.bound import (
    VARIANCES,
    likelihood_terms,
    noise_error_weights,
    prior_terms,
    step_terms,
    step_variances,
    variational_bound,
)
from diffusion.ddpm import Chain, cosine_betas, linear_betas
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


@pytest.mark.parametrize("variance", VARIANCES)
def test_the_gap_halves_when_the_steps_double(variance):
    # The small variance is worse, and reaches its rate only at more steps.
    steps, images = ((40, 80, 160), 5000) if variance == "small" else ((10, 20, 40), 20_000)
    found = [
        gaps(THREE_COLOURS, even_chain(length), count=images, variance=variance).mean()
        for length in steps
    ]
    orders = np.log2(np.array(found[:-1]) / found[1:])
    assert ((orders > 0.6) & (orders < 1.3)).all(), (found, orders)


@pytest.mark.parametrize("betas", [linear_betas, cosine_betas])
def test_the_bound_comes_close_on_the_papers_betas(betas):
    found = gaps(ONE_GAUSSIAN, Chain(betas(300)), count=4000, variance="large")
    assert abs(found.mean()) < 0.03 + 3 * found.std() / np.sqrt(len(found))


def test_a_worse_denoiser_gives_a_worse_bound():
    def worse(share):
        def denoise(*given):
            pred_noises, pred_images = THREE_COLOURS.denoise(*given)
            return pred_noises, (1 - share) * pred_images

        return denoise

    for variance in VARIANCES:
        means = [
            gaps(THREE_COLOURS, even_chain(40), denoise=worse(share), variance=variance).mean()
            for share in (0, 0.03, 0.1, 0.3)
        ]
        assert (np.diff(means) > 0.01).all(), means


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
            spread[t - 1] = {"small": small, "large": 1 - (signals[t] / signals[t - 1]) ** 2}[
                variance
            ]
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
def test_posterior_and_step_term_agree_with_bayes_on_a_grid(variance):
    chain, step, seen = Chain(linear_betas(40)), 7, {}

    def denoise(noisy_images, noise_rates, signal_rates):
        seen["noisy"], pred_images = noisy_images, 0.8 * noisy_images
        seen["rates"] = noise_rates.shape, noise_rates.dtype, noise_rates.item() ** 2
        return None, pred_images

    image = np.full((1, 1, 1, 1), 0.6)
    found = step_terms(chain, denoise, image, step, variance=variance)

    noisy = float(seen["noisy"].item())
    assert seen["rates"][:2] == ((1, 1, 1, 1), np.float32)
    beta, alpha_bar = chain.betas[step], np.prod(1 - chain.betas[: step + 1])
    assert seen["rates"][2] == pytest.approx(1 - alpha_bar)
    grid = np.linspace(-6, 6, 20_001)  # of x_{t-1}

    def posterior(clean):
        """q(x_{t-1} | x_t, x_0) by Bayes: q(x_{t-1} | x_0) q(x_t | x_{t-1}), normalised."""
        before = stats.norm.pdf(
            grid, np.sqrt(alpha_bar / (1 - beta)) * clean, np.sqrt(1 - alpha_bar / (1 - beta))
        )
        product = before * stats.norm.pdf(noisy, np.sqrt(1 - beta) * grid, np.sqrt(beta))
        return product / integrate.trapezoid(product, grid)

    q = posterior(0.6)
    mean = integrate.trapezoid(q * grid, grid)
    spread = integrate.trapezoid(q * (grid - mean) ** 2, grid)
    table_mean, table_variance = chain.posterior(
        image, np.full_like(image, noisy), np.array([step])
    )
    assert float(np.ravel(table_mean)[0]) == pytest.approx(mean, abs=1e-6)
    assert float(np.ravel(table_variance)[0]) == pytest.approx(spread, rel=1e-5)

    p_mean = integrate.trapezoid(posterior(0.8 * noisy) * grid, grid)
    p_spread = {"small": spread, "large": beta}[variance]
    logs = np.log(np.maximum(q, 1e-300)) - stats.norm.logpdf(grid, p_mean, np.sqrt(p_spread))
    assert found[0] == pytest.approx(integrate.trapezoid(q * logs, grid) / np.log(2), rel=1e-5)


def test_the_prior_term_is_the_kl_to_pure_noise_by_quadrature():
    chain = Chain(np.full(4, 0.3))
    image = np.array([[[[0.3, -2.0, 1.1]]]])
    known = 0
    for pixel in image.ravel():
        last = stats.norm(0.7**2 * pixel, np.sqrt(1 - 0.7**4))
        known += integrate.quad(
            lambda x, q=last: q.pdf(x) * (q.logpdf(x) - stats.norm.logpdf(x)), -9, 9
        )[0]
    assert prior_terms(chain, image)[0] == pytest.approx(known / 3 / np.log(2), rel=1e-6)


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
        constant = gaussian_kl(
            0,
            np.log(chain.posterior_variances[step]),
            0,
            np.log(step_variances(chain, variance)[step]),
        )
        known = noise_error_weights(chain, variance)[step - 1] * errors + constant
        np.testing.assert_allclose(found * np.log(2), known, rtol=2e-4)


@pytest.mark.parametrize("draws", [1, 3, 20])
def test_drawn_steps_estimate_the_full_sum_without_bias(draws):
    chain, images = even_chain(12), THREE_COLOURS.sample(30, seed=0)

    def means(number, repeats):
        found = (
            bounded(chain, THREE_COLOURS, images, draws=number, seed=seed)
            for seed in range(repeats)
        )
        return np.array([each.mean for each in found])

    full, drawn = means(None, 60), means(draws, 300)
    error = np.hypot(full.std() / np.sqrt(len(full)), drawn.std() / np.sqrt(len(drawn)))
    assert error < 0.04 * full.mean()
    assert abs(full.mean() - drawn.mean()) < 4 * error


@pytest.mark.parametrize("draws", [1, 4, 10, 25])
def test_each_step_is_drawn_equally_often_and_all_of_them_once_in_the_full_sum(draws):
    images, chain = np.zeros((2000, 1, 1, 1)), even_chain(11)

    def denoise(noisy_images, noise_rates, signal_rates):
        return noisy_images, noisy_images

    full = bounded(chain, None, images, denoise=denoise)
    assert (np.sort(full.steps, axis=0) == np.arange(1, 11)[:, None]).all()
    drawn = bounded(chain, None, images, denoise=denoise, draws=draws)
    counts = np.bincount(drawn.steps.ravel(), minlength=11)[1:]
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
    images = np.asarray(painted.images[:4])
    chain = Chain.from_schedule(model.schedule, 10)
    likelihood = PixelLikelihood.of(model.normalizer)

    def bound(**options):
        return variational_bound(
            chain, model.denoise, model.normalize(images), likelihood, **options
        )

    once, again, other = bound(), bound(), bound(seed=1)
    assert once.totals.shape == (4,) and (once.totals > 0).all()
    assert once.mean == again.mean
    assert (once.likelihood != other.likelihood).all()
    assert (once.step_terms != other.step_terms).all()
    assert once.prior.mean() < 0.01 < once.likelihood.mean()
    np.testing.assert_allclose(once.totals, once.prior + once.step_terms.sum(0) + once.likelihood)
    single = variational_bound(chain, model.denoise, model.normalize(images[:1]), likelihood)
    assert np.isnan(single.standard_error)


IMAGES = np.zeros((2, 1, 1, 3))


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda c, d: step_terms(c, d, IMAGES, 3, variance="middle"), "'middle'.*small, large"),
        (lambda c, d: step_terms(c, d, IMAGES, 0), "1 to 4, got .*0"),
        (lambda c, d: step_terms(c, d, IMAGES, 5), "1 to 4, got .*5"),
        (lambda c, d: step_terms(c, d, IMAGES, 1.5), "whole numbers.*1.5"),
        (lambda c, d: prior_terms(c, np.zeros((2, 4, 4, 3), "uint8")), "normalize, got uint8"),
        (lambda c, d: bounded(c, ONE_GAUSSIAN, IMAGES, draws=0), "draws.*0"),
        (lambda c, d: variational_bound(c, d, IMAGES, "gaussian"), "likelihood.*'gaussian'"),
        (lambda c, d: likelihood_terms(c, d, IMAGES, max, decoder_variance=-0.1), "-0.1"),
    ],
)
def test_a_bad_value_is_named_in_one_line(call, words):
    with pytest.raises(ValueError, match=words) as caught:
        call(even_chain(5), ONE_GAUSSIAN.denoise)
    assert "\n" not in str(caught.value)
