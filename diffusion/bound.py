"""The variational bound: the negative log-likelihood of images under a denoising chain, in bits.

The chain q adds noise, x_0 -> x_1 -> ... -> x_T. The model p walks back from x_T ~ N(0, I) by
Gaussian steps p(x_{t-1} | x_t). Each has a fixed variance, and the mean that q(x_{t-1} | x_t, x_0)
would have if x_0 were the image that the network predicts. Then, in expectation over q,

    -log p(x_0)  <=  L_T + sum over t = 2 .. T of L_{t-1} + L_0     with
    L_T     = KL( q(x_T | x_0)  ||  N(0, I) )                       the prior term
    L_{t-1} = KL( q(x_{t-1} | x_t, x_0)  ||  p(x_{t-1} | x_t) )     one step back
    L_0     = -log p(x_0 | x_1)                                     the last step, to the image

Sohl-Dickstein et al. 2015 (arXiv:1503.03585), eq. 14; Ho et al. 2020 (arXiv:2006.11239), eq. 3, 5.

A *chain* is a `ddpm.Chain` of T steps; index 0 is the paper's t = 1. `denoise` is called with
float32 NumPy arrays, rates of shape (B, 1, 1, 1). Images are normalised, as the network receives
them: (B, S, S, 3). All sums are taken in float64. Elementwise quantities are in nats. The terms,
one per image, are in bits per dimension: nats averaged over pixels and colours, divided by log 2.
"""

import dataclasses

import numpy as np
from keras import ops

from diffusion.ddpm import Chain
from diffusion.likelihoods import Likelihood, bits_per_dimension, gaussian_kl
from diffusion.support.contracts import Denoise, Tensor
from diffusion.support.validation import whole_number

VARIANCES = ("small", "large")


@dataclasses.dataclass(frozen=True)
class Bound:
    """The bound on each image's negative log-likelihood, term by term, in bits per dimension.

    prior: L_T, (B,). likelihood: L_0, (B,).
    steps: the steps that were evaluated, (N, B), from 1 to T - 1 (0 belongs to L_0): the paper's
        t - 1.
    step_terms: their L_{t-1}, (N, B), each estimated from one noise.
    chain_steps: T - 1, the number of such steps in the chain.
    """

    prior: np.ndarray
    steps: np.ndarray
    step_terms: np.ndarray
    likelihood: np.ndarray
    chain_steps: int

    @property
    def middle(self) -> np.ndarray:
        """The sum of L_{t-1} over t = 2 .. T, or its unbiased estimate: (B,)."""
        if not len(self.steps):
            return np.zeros_like(self.prior)
        return self.chain_steps * self.step_terms.mean(axis=0)

    @property
    def totals(self) -> np.ndarray:
        """The bound for each image, (B,)."""
        return self.prior + self.middle + self.likelihood

    @property
    def mean(self) -> float:
        """The bound averaged over the images."""
        return float(self.totals.mean())

    @property
    def standard_error(self) -> float:
        """The standard error of `mean` over new images, noises and steps; NaN for one image."""
        count = len(self.totals)
        return float(self.totals.std(ddof=1) / np.sqrt(count)) if count > 1 else float("nan")


def variational_bound(
    chain: Chain,
    denoise: Denoise,
    images: Tensor,
    likelihood: Likelihood,
    *,
    variance: str = "small",
    decoder_variance: Tensor = None,
    draws: int | None = None,
    seed: int = 0,
) -> Bound:
    """Bound the negative log-likelihood of `images` under the reversed chain.

    images: (B, S, S, 3), normalised.
    likelihood: for L_0, from `likelihoods`: `gaussian_log_likelihood` for continuous data,
        `PixelLikelihood` for images of 256 levels.
    variance: of the steps back; see `step_variances`. decoder_variance: see `likelihood_terms`.
    draws: None evaluates the network at all T steps. A number evaluates it that many times, and
        once more for L_0: the steps 2 .. T are divided into that many intervals of equal length,
        and each image draws one step from each. The expectation is that of the full sum.
    seed: an int; the same seed draws the same noises and steps.

    Ho et al. 2020, eq. 5; drawing t is their eq. 14 and Nichol and Dhariwal 2021
    (arXiv:2102.09672), section 3.3.
    Raises ValueError for images that are not floats, another variance, or draws below 1.
    """
    images = _as_images(images)
    generator = _generator(seed)
    last, count = len(chain) - 1, len(images)
    draws = last if draws is None else whole_number("draws", draws, least=1) * (last > 0)
    positions = (np.arange(draws)[:, None] + generator.uniform(size=(draws, count))) / max(draws, 1)
    steps = np.minimum(1 + (positions * last).astype(int), last)  # rounding may reach 1
    terms = [
        step_terms(chain, denoise, images, row, variance=variance, seed=generator) for row in steps
    ]
    return Bound(
        prior=prior_terms(chain, images),
        steps=steps,
        step_terms=np.array(terms).reshape(len(steps), count),
        likelihood=likelihood_terms(
            chain, denoise, images, likelihood, decoder_variance=decoder_variance, seed=generator
        ),
        chain_steps=last,
    )


def prior_terms(chain: Chain, images: Tensor) -> np.ndarray:
    """Return L_T of each image: (B,), in bits per dimension. Nothing in it is learned.

    It is small when the last alpha_bar is. Ho et al. 2020, eq. 5, first term.
    """
    images = _as_images(images)
    alpha_bar = chain.alpha_bars[-1]
    means = np.sqrt(alpha_bar) * images  # q(x_T | x_0) = N(means, 1 - alpha_bar_T)
    return bits_per_dimension(gaussian_kl(means, np.log1p(-alpha_bar), 0.0, 0.0))


def step_terms(
    chain: Chain,
    denoise: Denoise,
    images: Tensor,
    steps: Tensor,
    *,
    variance: str = "small",
    seed: int | np.random.Generator = 0,
) -> np.ndarray:
    """Estimate L_{t-1} of each image at its own step, from one noise: (B,), bits per dimension.

    steps: an integer, or integers (B,), from 1 to T - 1; step i is the paper's t = i + 1.
    variance: see `step_variances`. seed: an int or a `numpy.random.Generator`, for the noises.
    Ho et al. 2020, eq. 5, second term, with eq. 6 and 7.
    Raises ValueError for a step outside 1 .. T - 1, or another variance.
    """
    images = _as_images(images)
    steps = np.broadcast_to(np.asarray(steps), (len(images),))
    last = len(chain) - 1
    if steps.dtype.kind not in "iu" or steps.min() < 1 or steps.max() > last:
        raise ValueError(f"steps must be whole numbers of 1 to {last}, got {steps.tolist()[:5]}")
    variances = step_variances(chain, variance)[steps].reshape(_column(images))
    noisy_images, pred_images = _predict(chain, denoise, images, steps, seed)
    means, posterior_variances = chain.posterior(images, noisy_images, steps)
    pred_means, _ = chain.posterior(pred_images, noisy_images, steps)
    # KL( q(x_{t-1} | x_t, x_0) || p(x_{t-1} | x_t) )
    nats = gaussian_kl(means, np.log(posterior_variances), pred_means, np.log(variances))
    return bits_per_dimension(nats)


def likelihood_terms(
    chain: Chain,
    denoise: Denoise,
    images: Tensor,
    likelihood: Likelihood,
    *,
    decoder_variance: Tensor = None,
    seed: int | np.random.Generator = 0,
) -> np.ndarray:
    """Estimate L_0 of each image from one noise: (B,), in bits per dimension.

    p(x_0 | x_1) is a Gaussian around the image predicted from x_1, evaluated by `likelihood`.
    decoder_variance: of that Gaussian, a number or (3,); any positive value gives a bound. The
        default, beta_1, suits data whose density hardly changes within the first step's noise;
        otherwise the mean squared error of the prediction is best. (The code of Ho et al. uses
        `chain.posterior_variances[1]`.)
    likelihood, seed: see `variational_bound`, `step_terms`.
    Ho et al. 2020, eq. 5, third term, and eq. 13.
    Raises ValueError for a decoder_variance that is not positive.
    """
    images = _as_images(images)
    if decoder_variance is None:
        decoder_variance = chain.betas[0]
    if not np.all(np.asarray(decoder_variance) > 0):
        raise ValueError(f"decoder_variance must be positive, got {decoder_variance}")
    if not callable(likelihood):
        raise ValueError(
            "likelihood must be gaussian_log_likelihood, a PixelLikelihood or another function of "
            f"(images, means, log_variances), got {likelihood!r}"
        )
    _, pred_images = _predict(chain, denoise, images, np.zeros(len(images), int), seed)
    return -bits_per_dimension(likelihood(images, pred_images, np.log(decoder_variance)))


def step_variances(chain: Chain, variance: str = "small") -> np.ndarray:
    """Return sigma_t^2, the variances of the model's steps back: (T,), float64.

    variance: "small" is beta~_t, that of q(x_{t-1} | x_t, x_0), optimal for data at one point (and
        0 at the first step, which has no step term); "large" is beta_t, optimal for N(0, I).
    Ho et al. 2020, section 3.2. Raises ValueError for another variance.
    """
    if variance not in VARIANCES:
        raise ValueError(f"no variance {variance!r}: choose one of {', '.join(VARIANCES)}")
    return chain.posterior_variances if variance == "small" else chain.betas


def noise_error_weights(chain: Chain, variance: str = "small") -> np.ndarray:
    """Return the weight of a squared noise error in the bound, for t = 2 .. T: (T - 1,), in nats.

        L_{t-1} = weight * (eps - eps_theta)^2 + constant,
        weight = beta_t^2 / (2 sigma_t^2 alpha_t (1 - alpha_bar_t))

    for each pixel. The constant is 0 for the small variance; for the large one it is the KL between
    two Gaussians with the same mean and the two variances. The simple loss drops the weight.
    Ho et al. 2020, eq. 12 and 14. Raises ValueError for another variance.
    """
    variances = step_variances(chain, variance)[1:]
    betas, alphas, alpha_bars = chain.betas[1:], chain.alphas[1:], chain.alpha_bars[1:]
    return betas**2 / (2 * variances * alphas * (1 - alpha_bars))


def _predict(chain, denoise, images, steps, seed):
    """Noise each image to its step and predict the clean one: both (B, ...), float64."""
    noises = _generator(seed).normal(size=images.shape)
    noisy_images = chain.q_sample(images, steps, noises).astype("float32")
    rates = (
        table[steps].reshape(_column(images)).astype("float32")
        for table in (chain.noise_rates, chain.signal_rates)
    )
    _, pred_images = denoise(noisy_images, *rates)
    return np.float64(noisy_images), np.float64(ops.convert_to_numpy(pred_images))


def _generator(seed):
    """Return a separate stream, so that data drawn from the same seed are not their own noise."""
    if isinstance(seed, np.random.Generator):
        return seed
    return np.random.default_rng([seed, len("variational bound")])


def _column(images):
    """Return the shape (B, 1, ..., 1) of one number per image."""
    return (-1, *(1 for _ in images.shape[1:]))


def _as_images(images):
    images = ops.convert_to_numpy(images)
    if images.dtype.kind != "f" or images.ndim < 2:
        raise ValueError(
            "images must be floats (B, S, S, 3), normalised by model.normalize, got "
            f"{images.dtype} {images.shape}"
        )
    return np.float64(images)
