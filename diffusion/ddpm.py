"""The discrete chain of DDPM: T small steps from image to noise, and the way back.

Ho et al. 2020 (arXiv:2006.11239), section 2. Each step shrinks the image a little and adds a little
noise, x_t = sqrt(1 - beta_t) x_{t-1} + sqrt(beta_t) eps. All tables are float64 with one entry per
step. Index 0 is the paper's t = 1, because x_0 is the clean image.

A chain and a schedule describe the same thing: a schedule gives the noise at any time in [0, 1], a
chain at T of them. `Chain.from_schedule` and `Chain.as_schedule` convert one to the other, so a
network trained with either can be sampled with the other, by any sampler.
"""

import functools
from typing import Any, Self

import keras
import numpy as np
from keras import ops

from diffusion.schedules import Schedule
from diffusion.support.contracts import Schedule as ScheduleContract
from diffusion.support.contracts import Tensor
from diffusion.support.pixels import scale_pixels
from diffusion.support.validation import whole_number

_whole_steps = functools.partial(whole_number, "steps", least=1)


def linear_betas(steps: int = 1000) -> np.ndarray:
    """Return step variances that grow linearly: float64 (steps,).

    They run from 1e-4 to 0.02 for 1,000 steps. For another number they are multiplied by
    1000 / steps, so that about as much signal is left at the end. Ho et al. 2020, section 4.
    Raises ValueError for fewer than 21 steps, where the last variance would reach 1.
    """
    scale = 1000 / _whole_steps(steps)
    if scale * 0.02 >= 1:
        raise ValueError(f"linear betas need steps of 21 or more, got {steps}")
    return np.linspace(scale * 0.0001, scale * 0.02, steps, dtype="float64")


def cosine_betas(steps: int = 1000, offset: float = 0.008, largest: float = 0.999) -> np.ndarray:
    """Return step variances for which the signal falls along a cosine: float64 (steps,).

    alpha_bar(t) = f(t) / f(0), f(t) = cos^2((t + s) / (1 + s) pi/2), where the offset s keeps the
    first betas from being tiny. The last would be 1; betas are clipped at `largest`.
    Nichol and Dhariwal 2021 (arXiv:2102.09672), eq. 17.
    Raises ValueError for steps below 1.
    """
    times = np.arange(_whole_steps(steps) + 1) / steps
    signal_variances = np.cos((times + offset) / (1 + offset) * np.pi / 2) ** 2
    return np.minimum(1 - signal_variances[1:] / signal_variances[:-1], largest)


class Chain:
    """The tables of a chain, and the distributions that follow from them.

    betas: variances of the steps, (T,), each in (0, 1).

    Tables: `betas`; `alphas` = 1 - beta; `alpha_bars`, their cumulative products;
    `previous_alpha_bars`, those one step earlier, starting at 1; `noise_rates` and `signal_rates`,
    as in schedules. And of q(x_{t-1} | x_t, x_0), eq. 7: `posterior_variances`, and the
    coefficients of x_0 and x_t in its mean, `posterior_image_coefficients` and
    `posterior_noisy_coefficients`.

    The methods take images (B, ...), arrays or tensors, and `steps`, an array of B whole numbers
    from 0 to T - 1. Steps must be known at call time; symbolic tensors will not do.
    Raises ValueError for betas outside (0, 1).
    """

    def __init__(self, betas: Tensor):
        self.betas = betas = np.array(betas, "float64")
        if betas.ndim != 1 or not betas.size:
            raise ValueError(f"a chain needs a list of betas, got an array of shape {betas.shape}")
        wrong = betas[~((betas > 0) & (betas < 1))]
        if wrong.size:
            raise ValueError(f"a chain's betas must be above 0 and below 1, got {wrong[0]}")
        self.alphas = 1 - betas  # alpha_t = 1 - beta_t
        self.alpha_bars = np.cumprod(self.alphas)
        self.previous_alpha_bars = np.append(1.0, self.alpha_bars[:-1])
        self.signal_rates = np.sqrt(self.alpha_bars)
        self.noise_rates = np.sqrt(1 - self.alpha_bars)
        # Eq. 7: variance beta_t (1 - alpha_bar_{t-1}) / (1 - alpha_bar_t), and the mean
        #     sqrt(alpha_bar_{t-1}) beta_t / (1 - alpha_bar_t) x_0
        #   + sqrt(alpha_t) (1 - alpha_bar_{t-1}) / (1 - alpha_bar_t) x_t
        noise, previous_noise = 1 - self.alpha_bars, 1 - self.previous_alpha_bars
        self.posterior_variances = betas * previous_noise / noise
        self.posterior_image_coefficients = np.sqrt(self.previous_alpha_bars) * betas / noise
        self.posterior_noisy_coefficients = np.sqrt(self.alphas) * previous_noise / noise

    @classmethod
    def from_schedule(cls, schedule: ScheduleContract, steps: int) -> Self:
        """Make the chain that has a schedule's rates at times 1/steps, 2/steps, ..., 1.

        Its first step leads from the clean image to the rates at 1/steps, so it includes whatever
        noise the schedule has at time 0. Raises ValueError for fewer than 1 step.
        """
        times = (np.arange(_whole_steps(steps)) + 1) / steps
        noise_rates, signal_rates = (
            ops.convert_to_numpy(rates).astype("float64")
            for rates in schedule(times.astype("float32"))
        )
        # The rates are float32: where there is little noise, noise^2 keeps the digits that
        # 1 - signal^2 has lost.
        alpha_bars = signal_rates**2 / (signal_rates**2 + noise_rates**2)
        return cls(1 - alpha_bars / np.append(1.0, alpha_bars[:-1]))

    def __len__(self) -> int:
        return len(self.betas)

    def __repr__(self) -> str:
        return f"Chain({len(self)} betas, {self.betas[0]:.3g} to {self.betas[-1]:.3g})"

    def q_sample(self, images: Tensor, steps: Tensor, noises: Tensor) -> Tensor:
        """Jump from x_0 to x_t: a sample of q(x_t | x_0), eq. 4, from standard normal `noises`."""
        signal_rates, noise_rates = self._at(images, steps, self.signal_rates, self.noise_rates)
        return signal_rates * images + noise_rates * noises

    def noise_one_step(self, noisy_images: Tensor, steps: Tensor, noises: Tensor) -> Tensor:
        """Take one step from x_{t-1} to x_t: a sample of q(x_t | x_{t-1}), eq. 2.

        steps: the step that each image takes; step 0 leads from the clean image to x_1.
        """
        kept, added = self._at(noisy_images, steps, np.sqrt(self.alphas), np.sqrt(self.betas))
        return kept * noisy_images + added * noises

    def posterior(
        self, images: Tensor, noisy_images: Tensor, steps: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Return the means and variances of q(x_{t-1} | x_t, x_0), eq. 6 and 7.

        images: x_0; noisy_images: x_t. Means have the images' shape, variances (B, 1, ..., 1).
        At step 0 (t = 1) the means are `images` themselves and the variances 0.
        """
        image_coefficients, noisy_coefficients, variances = self._at(
            images,
            steps,
            self.posterior_image_coefficients,
            self.posterior_noisy_coefficients,
            self.posterior_variances,
        )
        return image_coefficients * images + noisy_coefficients * noisy_images, variances

    def as_schedule(self) -> "ChainSchedule":
        """Return this chain as a schedule, to train and to sample with."""
        return ChainSchedule(self.betas.tolist())

    def _at(self, images, steps, *tables):
        """Look up each table at `steps`: (B, 1, ..., 1), in the images' precision."""
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
    """A chain as a schedule: time 0 is the clean image, time t / T is step t.

    A time between two steps takes the rates of the later one. So times drawn uniformly from [0, 1]
    fall on each of the T steps equally often, and a sampler of T steps walks the whole chain back.
    betas: the chain's, as a list. Raises ValueError as `Chain` does.
    """

    def __init__(self, betas: Tensor):
        self.chain = Chain(betas)
        self._noise_rates = np.append(0.0, self.chain.noise_rates).astype("float32")
        self._signal_rates = np.append(1.0, self.chain.signal_rates).astype("float32")

    def __call__(self, diffusion_times: Tensor) -> tuple[Tensor, Tensor]:
        position = ops.cast(diffusion_times, "float32") * len(self.chain)
        # The 0.01 keeps rounding from turning step 5 into step 6.
        step = ops.clip(ops.ceil(position - 0.01), 0, len(self.chain))
        step = ops.cast(step, "int32")
        return ops.take(self._noise_rates, step), ops.take(self._signal_rates, step)

    def get_config(self) -> dict[str, Any]:
        return {"betas": self.chain.betas.tolist()}

    def __repr__(self) -> str:
        return repr(self.chain).replace("Chain(", "ChainSchedule(")


def to_symmetric(images: Tensor) -> Tensor:
    """Map images, uint8 or in [0, 1], to [-1, 1], as in DDPM (section 3.3).

    A model normalises this way by itself after `model.set_statistics(mean=0.5, variance=0.25)`.
    """
    return 2.0 * scale_pixels(images) - 1.0


def from_symmetric(images: Tensor) -> Tensor:
    """Map images in [-1, 1] back to [0, 1], clipped."""
    return ops.clip((images + 1.0) / 2.0, 0.0, 1.0)
