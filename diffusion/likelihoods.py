"""How probable a Gaussian makes what was seen: a number with a density, or a pixel of 256 levels.

Both are called as `likelihood(images, means, log_variances) -> nats`, elementwise, on normalised
images; `bound.variational_bound` takes either, or one of your own, for its last term.
"""

import numpy as np
from keras import ops
from scipy.special import log_ndtr


def gaussian_log_likelihood(images, means, log_variances):
    """log N(images; means, variances), elementwise, in nats: for data that have a density."""
    squares = (images - means) ** 2 * np.exp(-log_variances)
    return -0.5 * (np.log(2 * np.pi) + log_variances + squares)


class PixelLikelihood:
    """The probability that a Gaussian gives to a pixel's level, one of 256: log P, in nats.

    The pixel of level k is (k / 255 - mean) / deviation, per colour; its share of the axis reaches
    half a level to both sides, that of 0 and 255 to infinity. So the 256 probabilities sum to 1,
    and no scaling of the axis changes them.
    mean, deviation: numbers, or one for each colour, (3,). The default is [-1, 1], the paper's;
        `PixelLikelihood.of(model.normalizer)` has those that a model has learned.

    Called as (images, means, log_variances) -> log P, all normalised; elementwise.
    Ho et al. 2020, eq. 13. Raises ValueError for a deviation that is not positive, and for images
    that lie on no level.
    """

    def __init__(self, mean=0.5, deviation=0.5):
        self.mean, self.deviation = np.float64(mean), np.float64(deviation)
        if not np.all(self.deviation > 0):
            raise ValueError(f"deviation must be positive, got {deviation}")

    @classmethod
    def of(cls, normalizer):
        """Take mean and deviation of a `keras.layers.Normalization` over the last axis."""
        mean, variance = (
            np.ravel(ops.convert_to_numpy(values))
            for values in (normalizer.mean, normalizer.variance)
        )
        return cls(mean, np.sqrt(np.float64(variance)))

    def __call__(self, images, means, log_variances):
        levels = (np.asarray(images) * self.deviation + self.mean) * 255
        whole = np.clip(np.round(levels), 0, 255)
        if np.abs(levels - whole).max() > 0.05:
            worst = levels.flat[np.abs(levels - whole).argmax()]
            raise ValueError(
                f"an image lies at level {worst:.2f}, which is none of 0 .. 255: pass pictures of "
                "256 levels, normalised by this mean and deviation"
            )

        def scores(edges):
            return ((edges / 255 - self.mean) / self.deviation - means) * np.exp(-log_variances / 2)

        lower = np.where(whole == 0, -np.inf, scores(whole - 0.5))
        upper = np.where(whole == 255, np.inf, scores(whole + 0.5))
        return log_normal_interval(lower, upper)


def log_normal_interval(lower, upper):
    """log( Phi(upper) - Phi(lower) ), elementwise, for lower < upper: exact far out, too.

    In the upper tail both Phi round to 1, so what lies there is mirrored into the lower tail, where
    their logarithms are exact, and the difference is taken of these.
    """
    mirrored = lower + upper > 0
    low, high = np.where(mirrored, -upper, lower), np.where(mirrored, -lower, upper)
    log_high = log_ndtr(high)
    return log_high + np.log(-np.expm1(log_ndtr(low) - log_high))
