"""The bound against what is known: densities, Bayes on a grid, the whole chain as a matrix."""

import numpy as np
import pytest
from scipy import integrate, stats
from scipy.special import logsumexp

from diffusion.bound import (
    VARIANCES,
    bits_per_dimension,
    gaussian_kl,
    likelihood_terms,
    noise_error_weights,
    prior_terms,
    step_terms,
    step_variances,
    variational_bound,
)
from diffusion.ddpm import Chain, cosine_betas, linear_betas
from diffusion.likelihoods import PixelLikelihood, gaussian_log_likelihood


class Mixture:
    """Images (B, S, S, 3) from Gaussians of one deviation around some centres: all is known."""

    def __init__(self, centres, deviation, weights=None):
        self.centres, self.deviation = np.asarray(centres, "float64"), deviation
        count = len(self.centres)
        self.weights = np.full(count, 1 / count) if weights is None else np.asarray(weights)
        self.flat_centres = self.centres.reshape(count, -1)

    def sample(self, count, seed):
        generator = np.random.default_rng(seed)
        which = generator.choice(len(self.centres), count, p=self.weights)
        noises = generator.normal(size=(count, *self.centres.shape[1:]))
        return self.centres[which] + self.deviation * noises

    def log_joint(self, points, signal_rates=1.0, noise_rates=0.0):
        """log of weight times density, (B, K), after the chain's signal and noise (B, 1, 1)."""
        variances = (signal_rates * self.deviation) ** 2 + noise_rates**2
        points = points.reshape(len(points), 1, -1)
        squares = (points - signal_rates * self.flat_centres) ** 2 / variances
        logs = -0.5 * (squares + np.log(2 * np.pi * variances)).sum(axis=2)
        return logs + np.log(self.weights)

    def bits(self, images):
        """The true negative log-likelihood, (B,), in bits per dimension."""
        nats = -logsumexp(self.log_joint(images), axis=1)
        return nats / images[0].size / np.log(2)

    def denoise(self, noisy_images, noise_rates, signal_rates):
        """The ideal denoiser: the mean of all images that could be behind the noisy one."""
        noisy_images, noise_rates, signal_rates = (
            np.float64(array) for array in (noisy_images, noise_rates, signal_rates)
        )
        logs = self.log_joint(noisy_images, signal_rates[..., 0], noise_rates[..., 0])
        shares = np.exp(logs - logsumexp(logs, axis=1, keepdims=True))
        variances = (signal_rates * self.deviation) ** 2 + noise_rates**2
        means = np.tensordot(shares, self.centres, axes=1)  # of the centres, by responsibility
        surprise = noisy_images - signal_rates * means
        pred_images = means + signal_rates * self.deviation**2 / variances * surprise
        return (noisy_images - signal_rates * pred_images) / noise_rates, pred_images


ONE_GAUSSIAN = Mixture([[[[0.7, 0.7, 0.7]]]], 0.4)
THREE_COLOURS = Mixture([[[[1, -1, 0.5]]], [[[-1, 0.3, 1]]], [[[0, 1, -1]]]], 0.3, [0.5, 0.3, 0.2])
TWO_PICTURES = Mixture(np.random.default_rng(0).normal(size=(2, 2, 2, 3)), 0.5)


def gaps(data, chain, count=400, seed=0, denoise=None, **options):
    """The bound less the truth, of the same images, (B,): their common part cancels."""
    images = data.sample(count, seed)
    found = variational_bound(
        chain, denoise or data.denoise, images, gaussian_log_likelihood, seed=seed + 1000, **options
    )
    return found.totals - data.bits(images)


def even_chain(steps, first=1e-4, last=1e-5):
    """A chain whose steps are equal in log(signal / noise), from a fixed end to a fixed end.

    With betas over T the first step shrinks as T grows, and the small variance stays half of what
    it should be there, however many steps: the gap would not close.
    """
    ends = np.log((1 - first) / first), np.log(last / (1 - last))
    alpha_bars = 1 / (1 + np.exp(-np.linspace(*ends, steps)))
    return Chain(1 - alpha_bars / np.append(1, alpha_bars[:-1]))


@pytest.mark.parametrize("variance", VARIANCES)
@pytest.mark.parametrize("data", [ONE_GAUSSIAN, THREE_COLOURS, TWO_PICTURES])
def test_the_bound_lies_above_the_truth_for_every_seed_and_comes_close(data, variance):
    for seed in range(4):
        above = gaps(data, even_chain(15), count=4000, seed=seed, variance=variance)
        assert above.mean() > 4 * above.std() / np.sqrt(len(above))
    close = gaps(data, even_chain(200), count=2000, variance=variance)
    error = close.std() / np.sqrt(len(close))
    assert -3 * error < close.mean() < 0.3 * above.mean()
    assert error < 0.1 * above.mean()


@pytest.mark.parametrize("variance", VARIANCES)
def test_the_gap_halves_when_the_steps_double(variance):
    # The small variance is worse, and its rate is one of the longer run.
    steps, images = ((40, 80, 160), 5000) if variance == "small" else ((10, 20, 40), 20_000)
    found = [
        gaps(THREE_COLOURS, even_chain(length), count=images, variance=variance).mean()
        for length in steps
    ]
    orders = np.log2(np.array(found[:-1]) / found[1:])
    assert ((orders > 0.6) & (orders < 1.3)).all(), (found, orders)


@pytest.mark.parametrize("betas", [linear_betas, cosine_betas])
def test_the_bound_comes_close_on_the_papers_betas_too(betas):
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
    """The expected bound for Gaussian data, in bits: KL(q || p) of x_0 ... x_T at once.

    q and p are Gaussians of T + 1 numbers, so that no term is told from another: E[bound] is
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
        else:  # given x_0: the covariance of (x_{t-1}, x_t) with the data's variance taken out
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
    found = variational_bound(
        chain,
        data.denoise,
        data.sample(1500, seed=0),  # the bound's own seed, too: its noises must be others
        gaussian_log_likelihood,
        variance=variance,
        decoder_variance=0.15,
    )
    known = whole_chain_by_matrices(chain, variance, 0.15, 0.7, 0.4)
    assert found.standard_error < 0.01
    assert abs(found.mean - known) < 4 * found.standard_error


@pytest.mark.parametrize("variance", VARIANCES)
def test_a_step_term_is_the_kl_from_bayes_on_a_grid(variance):
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
        """q(x_{t-1} | x_t, x_0), by Bayes: what is likely before times what leads to x_t."""
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


def test_kl_agrees_with_simulation_and_vanishes_for_equals():
    generator = np.random.default_rng(0)
    for mean_1, deviation_1, mean_2, deviation_2 in [(0.5, 1, 0, 2), (1, 3, -1, 1), (0, 1, 2, 1)]:
        draws = generator.normal(mean_1, deviation_1, 200_000)
        logs = stats.norm.logpdf(draws, mean_1, deviation_1)
        logs = logs - stats.norm.logpdf(draws, mean_2, deviation_2)
        known = gaussian_kl(mean_1, 2 * np.log(deviation_1), mean_2, 2 * np.log(deviation_2))
        assert abs(logs.mean() - known) < 4 * logs.std() / np.sqrt(len(draws))
        assert known > 0.1
    assert gaussian_kl(0.3, -9.0, 0.3, -9.0) == 0
    # Nearly equal: what is left of the difference must not drown in rounding.
    assert gaussian_kl(0.0, -9.0, 0.0, -9.0 + 1e-5) == pytest.approx(2.5e-11, rel=1e-3)


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


COLOURS = PixelLikelihood([0.47, 0.40, 0.31], [0.29, 0.24, 0.27])


def on_axis(levels, likelihood):
    return (np.asarray(levels) / 255 - likelihood.mean) / likelihood.deviation


@pytest.mark.parametrize("likelihood", [PixelLikelihood(), COLOURS])
@pytest.mark.parametrize("log_variance", [-16.0, -8.0, -3.0, 4.0])
def test_the_256_levels_of_a_pixel_have_probability_one(likelihood, log_variance):
    means = np.random.default_rng(0).uniform(-3, 3, size=(50, 3))
    levels = on_axis(np.arange(256)[:, None, None] * np.ones((50, 3)), likelihood)
    logs = likelihood(levels, means, log_variance)
    assert np.isfinite(logs).all()
    np.testing.assert_allclose(np.exp(logs).sum(axis=0), 1, rtol=1e-9)


def test_a_level_has_the_probability_of_its_half_open_bin():
    means, log_variance = np.array([0.2, -0.4, 0.9]), np.log(0.3)
    for level in (0, 1, 100, 254, 255):
        edges = on_axis(np.add.outer([-0.5, 0.5], [level] * 3), COLOURS)
        edges[0] = -np.inf if level == 0 else edges[0]
        edges[1] = np.inf if level == 255 else edges[1]
        known = np.diff(stats.norm.cdf(edges, means, np.sqrt(0.3)), axis=0)[0]
        found = COLOURS(on_axis([level] * 3, COLOURS).astype("float32"), means, log_variance)
        np.testing.assert_allclose(np.exp(found), known, rtol=1e-6)


@pytest.mark.parametrize("mean", [-1.2, 1.2, 3.0])
def test_a_level_far_out_in_the_tail_keeps_its_logarithm(mean):
    # The integral with its largest factor taken out, which neither under- nor overflows.
    deviation, level = 0.02, 128
    low, high = (((level + half) / 127.5 - 1 - mean) / deviation for half in (-0.5, 0.5))
    near = min(abs(low), abs(high))
    inside = integrate.quad(lambda x: np.exp((near**2 - x**2) / 2), near, max(abs(low), abs(high)))
    known = -(near**2) / 2 + np.log(inside[0] / np.sqrt(2 * np.pi))
    found = PixelLikelihood()(level / 127.5 - 1, mean, 2 * np.log(deviation))
    assert known < -1000 and found == pytest.approx(known, rel=1e-9)


def test_no_scaling_of_the_axis_changes_the_bits_of_a_level():
    generator = np.random.default_rng(3)
    levels = generator.integers(0, 256, size=(40, 5, 5, 3))
    means, variances = generator.normal(size=(2, 40, 5, 5, 3))
    papers = PixelLikelihood()
    bits = []
    for likelihood in (papers, COLOURS, PixelLikelihood(0.0, 1.0)):
        # The same Gaussian, moved along with the axis.
        shrunk = papers.deviation / likelihood.deviation
        moved = (means * papers.deviation + papers.mean - likelihood.mean) / likelihood.deviation
        nats = likelihood(on_axis(levels, likelihood), moved, variances + 2 * np.log(shrunk))
        bits.append(-bits_per_dimension(nats))
    np.testing.assert_allclose(bits[1], bits[0], rtol=1e-9)
    np.testing.assert_allclose(bits[2], bits[0], rtol=1e-9)


@pytest.mark.parametrize("likelihood", [PixelLikelihood(), COLOURS])
def test_pixels_of_known_probability_are_bounded_in_bits_whatever_the_scale(likelihood):
    levels = np.arange(256)
    humps = np.exp(-0.5 * ((levels - np.array([[60], [120], [250]])) / 25) ** 2)
    chances = humps + 0.3 * humps[[1, 2, 0]]
    chances /= chances.sum(axis=1, keepdims=True)  # (3, 256), a colour each
    axis = on_axis(levels[:, None], likelihood) * np.ones(3)  # (256, 3)

    def denoise(noisy_images, noise_rates, signal_rates):
        misses = (noisy_images[..., None] - signal_rates[..., None] * axis.T) / noise_rates[
            ..., None
        ]
        logs = np.log(chances) - misses**2 / 2
        shares = np.exp(logs - logs.max(axis=-1, keepdims=True))
        return None, (shares * axis.T).sum(axis=-1) / shares.sum(axis=-1)

    generator = np.random.default_rng(0)
    drawn = [generator.choice(256, size=(80, 2, 2), p=chance) for chance in chances]
    images = on_axis(np.stack(drawn, axis=-1), likelihood)
    truths = [-np.log2(chances[colour][drawn[colour]]) for colour in range(3)]
    first = (0.3 / 255 / likelihood.deviation.max()) ** 2  # noise of a third of a level
    for variance, steps, most in (("small", 30, 10.0), ("large", 30, 1.5), ("large", 120, 0.25)):
        chain = even_chain(steps, first)
        found = variational_bound(chain, denoise, images, likelihood, variance=variance)
        above = found.totals - np.mean(truths, axis=(0, 2, 3))
        error = above.std() / np.sqrt(len(above))
        assert 3 * error < above.mean() < most, (above.mean(), error)


@pytest.mark.parametrize("draws", [1, 3, 20])
def test_drawn_steps_give_the_full_sum_in_the_mean(draws):
    chain, images = even_chain(12), THREE_COLOURS.sample(30, seed=0)

    def means(number, repeats):
        return np.array(
            [
                variational_bound(
                    chain,
                    THREE_COLOURS.denoise,
                    images,
                    gaussian_log_likelihood,
                    draws=number,
                    seed=seed,
                ).mean
                for seed in range(repeats)
            ]
        )

    full, drawn = means(None, 60), means(draws, 300)
    error = np.hypot(full.std() / np.sqrt(len(full)), drawn.std() / np.sqrt(len(drawn)))
    assert error < 0.04 * full.mean()
    assert abs(full.mean() - drawn.mean()) < 4 * error


@pytest.mark.parametrize("draws", [1, 4, 10, 25])
def test_each_step_is_drawn_equally_often_and_all_of_them_once_in_the_full_sum(draws):
    images, chain = np.zeros((2000, 1, 1, 1)), even_chain(11)

    def denoise(noisy_images, noise_rates, signal_rates):
        return noisy_images, noisy_images

    full = variational_bound(chain, denoise, images, gaussian_log_likelihood)
    assert (np.sort(full.steps, axis=0) == np.arange(1, 11)[:, None]).all()
    drawn = variational_bound(chain, denoise, images, gaussian_log_likelihood, draws=draws)
    counts = np.bincount(drawn.steps.ravel(), minlength=11)[1:]
    assert counts.sum() == 2000 * draws
    np.testing.assert_allclose(counts, 200 * draws, rtol=0.25)


@pytest.mark.parametrize("draws", [None, 2])
def test_the_standard_error_is_the_spread_of_the_mean_over_fresh_images(draws):
    chain = even_chain(10)
    found = [
        variational_bound(
            chain,
            THREE_COLOURS.denoise,
            THREE_COLOURS.sample(40, seed),
            gaussian_log_likelihood,
            draws=draws,
            seed=seed,
        )
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
        (
            lambda c, d: variational_bound(c, d, IMAGES, gaussian_log_likelihood, draws=0),
            "draws.*0",
        ),
        (lambda c, d: variational_bound(c, d, IMAGES, "gaussian"), "likelihood.*'gaussian'"),
        (
            lambda c, d: likelihood_terms(
                c, d, IMAGES, gaussian_log_likelihood, decoder_variance=-0.1
            ),
            "decoder_variance.*-0.1",
        ),
        (lambda c, d: PixelLikelihood()(np.float64(0.0), 0.0, 0.0), "level 127.50.*256 levels"),
        (lambda c, d: PixelLikelihood()(np.float64(1.5), 0.0, 0.0), "level 318.75"),
        (lambda c, d: PixelLikelihood(0.5, 0.0), "deviation.*0.0"),
    ],
)
def test_bad_input_is_named_in_one_line(call, words):
    with pytest.raises(ValueError, match=words) as caught:
        call(even_chain(5), ONE_GAUSSIAN.denoise)
    assert "\n" not in str(caught.value)
