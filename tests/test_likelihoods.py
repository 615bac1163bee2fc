"""Gaussian likelihoods of pixels, and the Gaussian KL, against quadrature and simulation."""

import numpy as np
import pytest
from scipy import integrate, stats

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


def test_kl_vanishes_for_equals_and_is_not_lost_to_rounding():
    """The test of the bound by matrices tells its other values."""
    assert gaussian_kl(0.3, -9.0, 0.3, -9.0) == 0
    assert gaussian_kl(0.0, -9.0, 0.0, -9.0 + 1e-5) == pytest.approx(2.5e-11, rel=1e-3)
