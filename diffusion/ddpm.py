"""The discrete chain of DDPM: T small steps from picture to noise, and the way back.

Ho et al. 2020 (arXiv:2006.11239), section 2. Each step shrinks the image a little and adds a little
noise, x_t = sqrt(1 - beta_t) x_{t-1} + sqrt(beta_t) eps. All tables are float64 and have an entry
for each step; index 0 is the paper's t = 1, for x_0 is the picture itself.

The chain and a schedule are two views of one thing: a schedule says how much noise there is at any
time in [0, 1], a chain says it at T of them. `Chain.from_schedule` and `Chain.as_schedule` go from
one to the other, so that a network trained on either is sampled by the other, by any sampler.
"""

import functools

import keras
import numpy as np
from keras import ops

from diffusion.schedules import Schedule
from diffusion.support.pixels import scale_pixels
from diffusion.support.validation import whole_number

_whole = functools.partial(whole_number, "steps", least=1)


def linear_betas(steps=1000):
    """Variances of the steps that grow linearly: float64 (steps,).

    From 1e-4 to 0.02 for 1000 steps; for another number they are multiplied by 1000/steps, so that
    as much signal is left at the end. Ho et al. 2020, section 4.
    Raises ValueError for steps below 21, where the last would take away more than there is.
    """
    scale = 1000 / _whole(steps)
    if scale * 0.02 >= 1:
        raise ValueError(f"linear betas need steps of 21 or more, got {steps}")
    return np.linspace(scale * 0.0001, scale * 0.02, steps, dtype="float64")


def cosine_betas(steps=1000, offset=0.008, largest=0.999):
    """Variances of the steps such that the signal falls along a cosine: float64 (steps,).

    alpha_bar(t) = f(t) / f(0), f(t) = cos^2((t + s) / (1 + s) pi/2), with s for `offset`, which
    keeps the first betas from being tiny; the last would be 1, and are clipped at `largest`.
    Nichol and Dhariwal 2021 (arXiv:2102.09672), eq. 17.
    Raises ValueError for steps below 1.
    """
    times = np.arange(_whole(steps) + 1) / steps
    signal_variances = np.cos((times + offset) / (1 + offset) * np.pi / 2) ** 2
    return np.minimum(1 - signal_variances[1:] / signal_variances[:-1], largest)


class Chain:
    """The tables of a chain, and what follows from them.

    betas: variances of the steps, (T,), each in (0, 1).

    `betas`, `alphas` = 1 - beta, `alpha_bars` their products, `previous_alpha_bars` those of the
    step before (1 at the start); `noise_rates` and `signal_rates`, as schedules have them; and of
    q(x_{t-1} | x_t, x_0), eq. 7: `posterior_variances`, and `posterior_image_coefficients` and
    `posterior_noisy_coefficients`, with which its mean is `first * x_0 + second * x_t`.

    Its methods take images (B, ...), arrays or tensors, and `steps`, whole numbers (B,) from 0 to
    T - 1 that are known when they are called, not symbols within a compiled function.
    Raises ValueError for betas outside (0, 1).
    """

    def __init__(self, betas):
        self.betas = betas = np.array(betas, "float64")
        if betas.ndim != 1 or not betas.size:
            raise ValueError(f"a chain needs a list of betas, got an array of shape {betas.shape}")
        wrong = betas[~((betas > 0) & (betas < 1))]
        if wrong.size:
            raise ValueError(f"a chain's betas must be above 0 and below 1, got {wrong[0]}")
        self.alphas = 1 - betas
        self.alpha_bars = np.cumprod(self.alphas)
        self.previous_alpha_bars = np.append(1.0, self.alpha_bars[:-1])
        self.signal_rates = np.sqrt(self.alpha_bars)
        self.noise_rates = np.sqrt(1 - self.alpha_bars)
        # Both parts of the mean, and the variance, share 1 / (1 - alpha_bar_t).
        gone, gone_before = 1 - self.alpha_bars, 1 - self.previous_alpha_bars
        self.posterior_variances = betas * gone_before / gone
        self.posterior_image_coefficients = np.sqrt(self.previous_alpha_bars) * betas / gone
        self.posterior_noisy_coefficients = np.sqrt(self.alphas) * gone_before / gone

    @classmethod
    def from_schedule(cls, schedule, steps):
        """Make the chain whose rates are a schedule's at times 1/steps, 2/steps, ..., 1.

        Its first step leads from the picture to the rates at 1/steps, and so holds all the noise
        that the schedule has at time 0. Raises ValueError for steps below 1.
        """
        times = (np.arange(_whole(steps)) + 1) / steps
        noise_rates, signal_rates = (
            np.asarray(ops.convert_to_numpy(rates), "float64")
            for rates in schedule(times.astype("float32"))
        )
        # Rates are float32: at little noise, 1 - signal^2 has lost the digits that noise^2 has.
        alpha_bars = signal_rates**2 / (signal_rates**2 + noise_rates**2)
        return cls(1 - alpha_bars / np.append(1.0, alpha_bars[:-1]))

    def __len__(self):
        return len(self.betas)

    def __repr__(self):
        return f"Chain({len(self)} betas, {self.betas[0]:.3g} to {self.betas[-1]:.3g})"

    def q_sample(self, images, steps, noises):
        """Jump from x_0 to x_t: a draw of q(x_t | x_0), eq. 4, from standard normal `noises`."""
        signal_rates, noise_rates = self._at(images, steps, self.signal_rates, self.noise_rates)
        return signal_rates * images + noise_rates * noises

    def noise_one_step(self, noisy_images, steps, noises):
        """Take one step, from x_{t-1} to x_t: a draw of q(x_t | x_{t-1}), eq. 2.

        steps: those that are taken; 0 leads from the picture to x_1.
        """
        kept, added = self._at(noisy_images, steps, np.sqrt(self.alphas), np.sqrt(self.betas))
        return kept * noisy_images + added * noises

    def posterior(self, images, noisy_images, steps):
        """Say where x_{t-1} lies, given x_0 and x_t: (means, variances), eq. 6 and 7.

        Means are of the images' shape, variances (B, 1, ..., 1). At step 0 (t = 1) the mean is
        `images` itself, and the variance 0.
        """
        image_coefficients, noisy_coefficients, variances = self._at(
            images,
            steps,
            self.posterior_image_coefficients,
            self.posterior_noisy_coefficients,
            self.posterior_variances,
        )
        return image_coefficients * images + noisy_coefficients * noisy_images, variances

    def as_schedule(self):
        """Return the schedule that a model is trained with on this chain, and sampled."""
        return ChainSchedule(self.betas.tolist())

    def _at(self, images, steps, *tables):
        """Look up each table at `steps`, as (B, 1, ..., 1) of the images' precision."""
        steps = np.asarray(steps)
        if steps.dtype.kind not in "iu" or steps.shape != (len(images),):
            raise ValueError(
                f"steps must be {len(images)} whole numbers, one for each image, "
                f"got {steps.dtype} of shape {steps.shape}"
            )
        wrong = steps[(steps < 0) | (steps >= len(self))]
        if wrong.size:
            raise ValueError(f"steps of this chain go from 0 to {len(self) - 1}, got {wrong[0]}")
        shape = (-1, *(1 for _ in images.shape[1:]))
        dtype = keras.backend.standardize_dtype(images.dtype)
        return [table[steps].reshape(shape).astype(dtype) for table in tables]


@keras.saving.register_keras_serializable(package="diffusion")
class ChainSchedule(Schedule):
    """A chain as a schedule: time 0 is the picture, t / T is step t, times between take the next.

    So times drawn evenly from [0, 1] fall on each of the T steps equally often, and a sampler of T
    steps goes through the chain from its end to the picture.
    betas: a list of the chain's. Raises ValueError as `Chain` does.
    """

    def __init__(self, betas):
        self.chain = Chain(betas)
        self._noise_rates = np.append(0.0, self.chain.noise_rates).astype("float32")
        self._signal_rates = np.append(1.0, self.chain.signal_rates).astype("float32")

    def __call__(self, diffusion_times):
        position = ops.cast(diffusion_times, "float32") * len(self.chain)
        # Less a little, lest rounding turn step 5 into 6.
        step = ops.clip(ops.ceil(position - 0.01), 0, len(self.chain))
        step = ops.cast(step, "int32")
        return ops.take(self._noise_rates, step), ops.take(self._signal_rates, step)

    def get_config(self):
        return {"betas": self.chain.betas.tolist()}

    def __repr__(self):
        return repr(self.chain).replace("Chain(", "ChainSchedule(")


def to_symmetric(images):
    """Turn pictures, uint8 or in [0, 1], into images in [-1, 1], as DDPM has them (section 3.3).

    A model normalises so by itself after `model.set_statistics(mean=0.5, variance=0.25)`.
    """
    return 2.0 * scale_pixels(images) - 1.0


def from_symmetric(images):
    """Turn images in [-1, 1] back into pictures in [0, 1]; what lies outside is clipped."""
    return ops.clip((images + 1.0) / 2.0, 0.0, 1.0)
