"""Gaussian likelihoods of pixels, and the Gaussian KL, against quadrature and simulation."""

import numpy as np
import pytest
from denoisers import even_chain
from scipy import integrate, stats

from diffusion.bound import variational_bound
from diffusion.likelihoods import PixelLikelihood, gaussian_kl

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


@pytest.mark.parametrize("likelihood", [PixelLikelihood(), COLOURS])
def test_a_level_has_the_probability_of_its_half_open_bin(likelihood):
    means, log_variance = np.array([0.2, -0.4, 0.9]), np.log(0.3)
    for level in (0, 1, 100, 254, 255):
        edges = on_axis(np.add.outer([-0.5, 0.5], [level] * 3), likelihood)
        edges[0] = -np.inf if level == 0 else edges[0]
        edges[1] = np.inf if level == 255 else edges[1]
        known = np.diff(stats.norm.cdf(edges, means, np.sqrt(0.3)), axis=0)[0]
        levels = on_axis([level] * 3, likelihood).astype("float32")
        np.testing.assert_allclose(
            np.exp(likelihood(levels, means, log_variance)), known, rtol=1e-6
        )


@pytest.mark.parametrize("mean", [-1.2, 1.2, 3.0])
def test_a_level_far_in_the_tail_has_an_exact_logarithm(mean):
    # The integral with its largest factor taken out, so that it does not underflow.
    deviation, level = 0.02, 128
    low, high = (((level + half) / 127.5 - 1 - mean) / deviation for half in (-0.5, 0.5))
    near = min(abs(low), abs(high))
    inside = integrate.quad(lambda x: np.exp((near**2 - x**2) / 2), near, max(abs(low), abs(high)))
    known = -(near**2) / 2 + np.log(inside[0] / np.sqrt(2 * np.pi))
    found = PixelLikelihood()(level / 127.5 - 1, mean, 2 * np.log(deviation))
    assert known < -1000 and found == pytest.approx(known, rel=1e-9)


@pytest.mark.slow
@pytest.mark.parametrize("likelihood", [PixelLikelihood(), COLOURS])
def test_the_bound_of_pixels_is_above_their_known_bits_and_close_at_any_scale(likelihood):
    levels = np.arange(256)
    humps = np.exp(-0.5 * ((levels - np.array([[60], [120], [250]])) / 25) ** 2)
    chances = humps + 0.3 * humps[[1, 2, 0]]
    chances /= chances.sum(axis=1, keepdims=True)  # (3, 256), a colour each
    axis = on_axis(levels[:, None], likelihood) * np.ones(3)  # (256, 3)

    def denoise(noisy_images, noise_rates, signal_rates):
        misses = noisy_images[..., None] - signal_rates[..., None] * axis.T
        logs = np.log(chances) - (misses / noise_rates[..., None]) ** 2 / 2
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


def test_kl_vanishes_for_equals_and_is_not_lost_to_rounding():
    """The test of the bound by matrices tells its other values."""
    assert gaussian_kl(0.3, -9.0, 0.3, -9.0) == 0
    assert gaussian_kl(0.0, -9.0, 0.0, -9.0 + 1e-5) == pytest.approx(2.5e-11, rel=1e-3)
