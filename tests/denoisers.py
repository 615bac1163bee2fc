"""Denoisers that know the answer, and what follows from them: for the samplers and the bound."""

import numpy as np
from scipy.special import logsumexp

from diffusion.ddpm import Chain

MEAN, DEVIATION = 0.7, 0.4  # of the Gaussian data, each pixel independent


def best_denoiser(noisy_images, noise_rates, signal_rates):
    """Return the posterior means for data N(MEAN, DEVIATION^2): no network can do better."""
    variances = signal_rates**2 * DEVIATION**2 + noise_rates**2
    surprise = (noisy_images - signal_rates * MEAN) / variances
    return noise_rates * surprise, MEAN + signal_rates * DEVIATION**2 * surprise


def knowing(images, seen=None):
    """Return a `denoise` that knows the images; it appends what it is called with to `seen`."""

    def denoise(noisy_images, noise_rates, signal_rates):
        if seen is not None:
            seen.append((np.asarray(noisy_images), float(noise_rates[0, 0, 0, 0])))
        return (noisy_images - signal_rates * images) / noise_rates, images

    return denoise


def exact_flow(schedule, noise, end):
    """Return the image predicted at `end` when the flow starts from `noise` at time 1.

    For Gaussian data the flow only shifts and scales: each point keeps its distance from the mean
    in standard deviations.
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


class Mixture:
    """Images (B, S, S, 3) from a mixture of Gaussians: density and best denoiser are known."""

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
        """log(weight * density) of each component, (B, K), at rates (B, 1, 1)."""
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
        """The ideal denoiser: the posterior mean of the image given the noisy one."""
        noisy_images, noise_rates, signal_rates = (
            np.float64(array) for array in (noisy_images, noise_rates, signal_rates)
        )
        logs = self.log_joint(noisy_images, signal_rates[..., 0], noise_rates[..., 0])
        shares = np.exp(logs - logsumexp(logs, axis=1, keepdims=True))
        variances = (signal_rates * self.deviation) ** 2 + noise_rates**2
        means = np.tensordot(shares, self.centres, axes=1)
        surprise = noisy_images - signal_rates * means
        pred_images = means + signal_rates * self.deviation**2 / variances * surprise
        return (noisy_images - signal_rates * pred_images) / noise_rates, pred_images


def even_chain(steps, first=1e-4, last=1e-5):
    """A chain of steps that are equal in log(signal / noise) between two fixed ends.

    With the papers' betas the first step shrinks as T grows, and the small variance stays half of
    the best one there: the gap would never close.
    """
    ends = np.log((1 - first) / first), np.log(last / (1 - last))
    alpha_bars = 1 / (1 + np.exp(-np.linspace(*ends, steps)))
    return Chain(1 - alpha_bars / np.append(1, alpha_bars[:-1]))
