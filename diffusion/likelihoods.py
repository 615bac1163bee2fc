"""Gaussian likelihoods of continuous values and of pixels of 256 levels, and the Gaussian KL.

Both likelihoods are called as `likelihood(images, means, log_variances) -> nats`, elementwise, on
normalised images. `bound.variational_bound` takes either, or one of your own, for its last term.
"""

from collections.abc import Callable
from typing import Any, Self, TypeAlias

import numpy as np
from keras import ops
from scipy.special import log_ndtr

from diffusion.support.contracts import Tensor

Likelihood: TypeAlias = Callable[[Tensor, Tensor, Tensor], Tensor]


def gaussian_log_likelihood(images: Tensor, means: Tensor, log_variances: Tensor) -> Tensor:
    """Return log N(images; means, variances), elementwise, in nats: for continuous data."""
    squares = (images - means) ** 2 * np.exp(-log_variances)
    return -0.5 * (np.log(2 * np.pi) + log_variances + squares)


class PixelLikelihood:
    """The log-probability, in nats, that a Gaussian gives to a pixel's level, one of 256.

    A pixel of level k lies at (k / 255 - mean) / deviation, per colour. Its bin reaches half a
    level to either side, and to infinity at levels 0 and 255. So the 256 probabilities sum to 1,
    however the axis is scaled.
    mean, deviation: numbers, or one for each colour, (3,). The default is the paper's [-1, 1];
        `PixelLikelihood.of(model.normalizer)` takes those that a model has learned.

    Called as (images, means, log_variances) -> log P, all normalised; elementwise.
    Ho et al. 2020, eq. 13. Raises ValueError for a deviation that is not positive, and for images
    that lie on no level.
    """

    def __init__(self, mean: Tensor = 0.5, deviation: Tensor = 0.5):
        self.mean, self.deviation = np.float64(mean), np.float64(deviation)
        if not np.all(self.deviation > 0):
            raise ValueError(f"deviation must be positive, got {deviation}")

    @classmethod
    def of(cls, normalizer: Any) -> Self:
        """Take mean and deviation from a `keras.layers.Normalization` over the last axis."""
        mean, variance = (
            np.ravel(ops.convert_to_numpy(values))
            for values in (normalizer.mean, normalizer.variance)
        )
        return cls(mean, np.sqrt(np.float64(variance)))

    def __call__(self, images: Tensor, means: Tensor, log_variances: Tensor) -> Tensor:
        levels = (np.asarray(images) * self.deviation + self.mean) * 255
        whole = np.clip(np.round(levels), 0, 255)
        if np.abs(levels - whole).max() > 0.05:
            worst = levels.flat[np.abs(levels - whole).argmax()]
            raise ValueError(
                f"an image has a pixel at level {worst:.2f}, which is none of 0 to 255: pass "
                "images of 256 levels, normalised by this mean and deviation"
            )

        def scores(edges):
            return ((edges / 255 - self.mean) / self.deviation - means) * np.exp(-log_variances / 2)

        # P(level k) = Phi(score of k + 1/2) - Phi(score of k - 1/2)
        lower = np.where(whole == 0, -np.inf, scores(whole - 0.5))
        upper = np.where(whole == 255, np.inf, scores(whole + 0.5))
        return log_normal_interval(lower, upper)


def log_normal_interval(lower: Tensor, upper: Tensor) -> Tensor:
    """Return log( Phi(upper) - Phi(lower) ), elementwise, for lower < upper; exact in both tails.

    In the upper tail both Phi round to 1. An interval there is mirrored into the lower tail, where
    the logarithms of both are exact, and the difference is taken from them.
    """
    mirrored = lower + upper > 0
    low, high = np.where(mirrored, -upper, lower), np.where(mirrored, -lower, upper)
    # log(Phi(high) - Phi(low)) = log Phi(high) + log(1 - Phi(low) / Phi(high))
    log_high = log_ndtr(high)
    return log_high + np.log(-np.expm1(log_ndtr(low) - log_high))


def gaussian_kl(
    mean_1: Tensor, log_variance_1: Tensor, mean_2: Tensor, log_variance_2: Tensor
) -> Tensor:
    """Return KL( N(mean_1, variance_1) || N(mean_2, variance_2) ), elementwise, in nats; never < 0.

    The arguments are arrays or numbers that broadcast. With r = variance_1 / variance_2,

        KL = (r - 1 - log r + (mean_1 - mean_2)^2 / variance_2) / 2
    """
    ratios = log_variance_1 - log_variance_2
    spreads = np.expm1(ratios) - ratios
    return 0.5 * (spreads + (mean_1 - mean_2) ** 2 * np.exp(-np.asarray(log_variance_2)))


def bits_per_dimension(nats: Tensor) -> np.ndarray:
    """Average nats (B, ...) over all axes but the first, in bits: (B,)."""
    return np.reshape(nats, (len(nats), -1)).mean(axis=1) / np.log(2)
