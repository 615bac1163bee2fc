"""The variational bound: what a chain of denoising steps is worth as a density, in bits.

The chain q adds noise, x_0 -> x_1 -> ... -> x_T. The model p walks back, from x_T ~ N(0, I) by
Gaussian steps p(x_{t-1} | x_t), each of the mean that q(x_{t-1} | x_t, x_0) would have if x_0 were
the image that the network predicts, and of a fixed variance. Then

    -log p(x_0)  <=  L_T + sum over t = 2 .. T of L_{t-1} + L_0     in the mean over q, with
    L_T     = KL( q(x_T | x_0)  ||  N(0, I) )                       what the last step still shows
    L_{t-1} = KL( q(x_{t-1} | x_t, x_0)  ||  p(x_{t-1} | x_t) )     one step back
    L_0     = -log p(x_0 | x_1)                                     from almost clean to clean

Sohl-Dickstein et al. 2015 (arXiv:1503.03585), eq. 14; Ho et al. 2020 (arXiv:2006.11239), eq. 3, 5.

A *chain* is a `ddpm.Chain`: T steps, index 0 being the paper's t = 1.
`denoise(noisy_images, noise_rates, signal_rates) -> (pred_noises, pred_images)` is handed float32
NumPy arrays, the rates of shape (B, 1, 1, 1). Images are the network's: normalised, (B, S, S, 3).
All sums are taken in float64. Elementwise quantities are in nats; terms, one for each image, are in
bits per dimension: nats, averaged over pixels and colours, over log 2.
"""

import dataclasses

import numpy as np
from keras import ops

VARIANCES = ("small", "large")


@dataclasses.dataclass(frozen=True)
class Bound:
    """The bound on each image's negative log-likelihood, term by term, in bits per dimension.

    prior: L_T, (B,). likelihood: L_0, (B,).
    steps: which steps were looked at, (N, B), of 1 .. T - 1 (0 is L_0's): the paper's t - 1.
    step_terms: their L_{t-1}, (N, B), each drawn with one noise.
    chain_steps: T - 1, how many there are in all.
    """

    prior: np.ndarray
    steps: np.ndarray
    step_terms: np.ndarray
    likelihood: np.ndarray
    chain_steps: int

    @property
    def middle(self):
        """The sum of all L_{t-1}, t = 2 .. T, or the unbiased estimate of it: (B,)."""
        if not len(self.steps):
            return np.zeros_like(self.prior)
        return self.chain_steps * self.step_terms.mean(axis=0)

    @property
    def totals(self):
        """The bound for each image, (B,)."""
        return self.prior + self.middle + self.likelihood

    @property
    def mean(self):
        """The bound, averaged over the images: a float."""
        return float(self.totals.mean())

    @property
    def standard_error(self):
        """The standard error of `mean`: images, noises and steps all drawn anew. NaN for B = 1."""
        count = len(self.totals)
        return float(self.totals.std(ddof=1) / np.sqrt(count)) if count > 1 else float("nan")


def variational_bound(
    chain,
    denoise,
    images,
    likelihood,
    *,
    variance="small",
    decoder_variance=None,
    draws=None,
    seed=0,
):
    """Bound the negative log-likelihood of `images` under the chain run backwards: a `Bound`.

    images: (B, S, S, 3), normalised as the network knows them.
    likelihood: of L_0, from `likelihoods`: `gaussian_log_likelihood` for data with a density,
        `PixelLikelihood` for pictures of 256 levels.
    variance: of the steps back; see `step_variances`. decoder_variance: see `likelihood_terms`.
    draws: None asks the network at all T steps. A number asks only that many times (plus one for
        L_0): the steps 2 .. T are cut into as many stretches of equal length, and each image draws
        one step in each stretch. The mean is that of the full sum, whatever the number.
    seed: an int; the same seed draws the same noises and steps.

    Ho et al. 2020, eq. 5; drawing t is their eq. 14 and Nichol and Dhariwal 2021
    (arXiv:2102.09672), section 3.3.
    Raises ValueError for images that are not floats, another variance, or draws below 1.
    """
    images = _as_images(images)
    generator = _generator(seed)
    last, count = len(chain) - 1, len(images)
    if draws is not None and (draws < 1 or int(draws) != draws):
        raise ValueError(f"draws must be a whole number, 1 or more, or None for all, got {draws}")
    draws = last if draws is None else int(draws) * (last > 0)
    positions = (np.arange(draws)[:, None] + generator.uniform(size=(draws, count))) / max(draws, 1)
    steps = np.minimum(1 + (positions * last).astype(int), last)  # for rounding may reach a whole 1
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


def prior_terms(chain, images):
    """L_T of each image: (B,), in bits per dimension. Nothing in it is learned.

    It is small where the last alpha_bar is. Ho et al. 2020, eq. 5, first term.
    """
    images = _as_images(images)
    alpha_bar = chain.alpha_bars[-1]
    means = np.sqrt(alpha_bar) * images
    return bits_per_dimension(gaussian_kl(means, np.log1p(-alpha_bar), 0.0, 0.0))


def step_terms(chain, denoise, images, steps, *, variance="small", seed=0):
    """L_{t-1} of each image at a step of its own: (B,), in bits per dimension, each by one noise.

    steps: an integer, or integers (B,), of 1 .. T - 1; step i is the paper's t = i + 1.
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
    nats = gaussian_kl(means, np.log(posterior_variances), pred_means, np.log(variances))
    return bits_per_dimension(nats)


def likelihood_terms(chain, denoise, images, likelihood, *, decoder_variance=None, seed=0):
    """L_0 of each image: (B,), in bits per dimension, by one noise.

    p(x_0 | x_1) is a Gaussian around the image predicted from x_1, as `likelihood` takes it.
    decoder_variance: of that Gaussian, one number or (3,); any gives a bound. Default beta_1, right
        where the density hardly changes within the first step's noise; else the mean squared error
        of the prediction is best. (The code of Ho et al. takes `chain.posterior_variances[1]`.)
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


def step_variances(chain, variance="small"):
    """sigma_t^2, the variances of the model's steps back: (T,), float64.

    variance: "small" is beta~_t, that of q(x_{t-1} | x_t, x_0), best if the data are one point (and
        0 at the first step, which has no step term); "large" is beta_t, best if they are N(0, I).
    Ho et al. 2020, section 3.2. Raises ValueError for another variance.
    """
    if variance not in VARIANCES:
        raise ValueError(f"no variance {variance!r}: choose one of {', '.join(VARIANCES)}")
    return chain.posterior_variances if variance == "small" else chain.betas


def noise_error_weights(chain, variance="small"):
    """What a squared error of the noise costs at each step of 2 .. T: (T - 1,), in nats.

        L_{t-1} = weight * (eps - eps_theta)^2 + constant,
        weight = beta_t^2 / (2 sigma_t^2 alpha_t (1 - alpha_bar_t))

    for each pixel. The constant is 0 for the small variance, and for the large one the KL between
    two Gaussians of one mean and the two variances. Training leaves the weights away.
    Ho et al. 2020, eq. 12 and 14. Raises ValueError for another variance.
    """
    variances = step_variances(chain, variance)[1:]
    betas, alphas, alpha_bars = chain.betas[1:], chain.alphas[1:], chain.alpha_bars[1:]
    return betas**2 / (2 * variances * alphas * (1 - alpha_bars))


def gaussian_kl(mean_1, log_variance_1, mean_2, log_variance_2):
    """KL( N(mean_1, variance_1) || N(mean_2, variance_2) ), elementwise, in nats; never below 0.

    Arguments: arrays or numbers that broadcast. Integrate log(N_1 / N_2) over N_1.
    """
    ratios = log_variance_1 - log_variance_2
    spreads = np.expm1(ratios) - ratios
    return 0.5 * (spreads + (mean_1 - mean_2) ** 2 * np.exp(-np.asarray(log_variance_2)))


def bits_per_dimension(nats):
    """Average nats (B, ...) over all but the first axis, in bits: (B,)."""
    return np.reshape(nats, (len(nats), -1)).mean(axis=1) / np.log(2)


def _predict(chain, denoise, images, steps, seed):
    """Noise each image to its step, and ask for the image in it: both (B, ...), float64."""
    noises = _generator(seed).normal(size=images.shape)
    noisy_images = chain.q_sample(images, steps, noises).astype("float32")
    rates = (
        table[steps].reshape(_column(images)).astype("float32")
        for table in (chain.noise_rates, chain.signal_rates)
    )
    _, pred_images = denoise(noisy_images, *rates)
    return np.float64(noisy_images), np.float64(ops.convert_to_numpy(pred_images))


def _generator(seed):
    """A stream of its own: data that were drawn from the same seed must not be their own noise."""
    if isinstance(seed, np.random.Generator):
        return seed
    return np.random.default_rng([seed, len("variational bound")])


def _column(images):
    """The shape of one number for each image."""
    return (-1, *(1 for _ in images.shape[1:]))


def _as_images(images):
    images = ops.convert_to_numpy(images)
    if images.dtype.kind != "f" or images.ndim < 2:
        raise ValueError(
            "images must be floats (B, S, S, 3), normalised as by model.normalize, got "
            f"{images.dtype} {images.shape}"
        )
    return np.float64(images)
