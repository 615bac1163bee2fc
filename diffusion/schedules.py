"""Diffusion schedules: diffusion times -> (noise_rates, signal_rates).

A schedule takes times in [0, 1], of any shape, and returns two tensors of that shape. Rates are
square roots of variances, so `noise_rates**2 + signal_rates**2 == 1`. Each time is treated on its
own, whatever else is in the batch. To write your own, derive from `Schedule` and register the
class as below; it is then saved with the model. See `support.contracts.Schedule`.
"""

import math
import warnings
from typing import Any

import keras
import numpy as np
from keras import ops

from diffusion.support.contracts import Schedule as ScheduleContract
from diffusion.support.contracts import Tensor
from diffusion.support.validation import Configured, whole_number


class Schedule(Configured):
    """Base class of the schedules: how they are called and saved."""

    def __call__(self, diffusion_times: Tensor) -> tuple[Tensor, Tensor]:
        """Return (noise_rates, signal_rates), float32, of the shape of `diffusion_times`.

        diffusion_times: a tensor or array of times in [0, 1]; 0 is the image, 1 is noise.
        """
        raise NotImplementedError


@keras.saving.register_keras_serializable(package="diffusion")
class LinearSchedule(Schedule):
    """Per-step variances beta that grow linearly from `min_rate` to `max_rate`.

    The chain has `steps` equal steps. `min_rate` and `max_rate` are the variances for 1,000 steps;
    for another number they are multiplied by 1000 / steps, so that as little signal is left at
    time 1. Listing 8-3 multiplies along the batch. Here the product over the steps,
    alpha_bar_k = (1 - beta_0)(1 - beta_1)...(1 - beta_k), is taken once and looked up at
    k = t * steps, with linear interpolation of its logarithm. At time 0 one step has already been
    taken, as in the listing. Ho et al. 2020 (arXiv:2006.11239), section 4.

    Raises ValueError unless 0 < min_rate <= max_rate < 1, and for so few steps that the last
    variance would reach 1.
    """

    def __init__(self, min_rate: float = 0.0001, max_rate: float = 0.02, steps: int = 1000):
        if not 0 < min_rate <= max_rate < 1:
            raise ValueError(
                "a linear schedule needs 0 < min_rate <= max_rate < 1, "
                f"got min_rate={min_rate}, max_rate={max_rate}"
            )
        scale = 1000 / whole_number("steps", steps, least=1)
        if scale * max_rate >= 1:
            raise ValueError(
                f"a linear schedule with max_rate={max_rate} needs more than {1000 * max_rate:g} "
                f"steps, got steps={steps}"
            )
        self.min_rate, self.max_rate, self.steps = min_rate, max_rate, steps
        betas = scale * (min_rate + np.arange(steps + 1) / steps * (max_rate - min_rate))
        # log alpha_bar_k = sum of log(1 - beta_i) over i <= k, in float64 to keep it exact
        self._log_alpha_bars = np.cumsum(np.log1p(-betas)).astype("float32")

    def __call__(self, diffusion_times: Tensor) -> tuple[Tensor, Tensor]:
        position = ops.cast(diffusion_times, "float32") * self.steps
        step = ops.clip(ops.floor(position), 0, self.steps - 1)
        here = ops.take(self._log_alpha_bars, ops.cast(step, "int32"))
        there = ops.take(self._log_alpha_bars, ops.cast(step, "int32") + 1)
        log_alpha_bars = here + (position - step) * (there - here)
        # noise = sqrt(1 - alpha_bar), signal = sqrt(alpha_bar)
        return ops.sqrt(-ops.expm1(log_alpha_bars)), ops.exp(log_alpha_bars / 2)

    def get_config(self) -> dict[str, Any]:
        return {"min_rate": self.min_rate, "max_rate": self.max_rate, "steps": self.steps}


@keras.saving.register_keras_serializable(package="diffusion")
class CosineSchedule(Schedule):
    """A quarter turn from signal to noise: signal cos(t pi/2), noise sin(t pi/2).

    Nichol and Dhariwal 2021 (arXiv:2102.09672), eq. 17 without its offset; listing 8-4.
    """

    def __call__(self, diffusion_times: Tensor) -> tuple[Tensor, Tensor]:
        angles = ops.cast(diffusion_times, "float32") * (math.pi / 2)
        return ops.sin(angles), ops.cos(angles)


@keras.saving.register_keras_serializable(package="diffusion")
class OffsetCosineSchedule(Schedule):
    """Part of the cosine's quarter turn: the signal falls from `max_` to `min_signal_rate`.

    The first steps are then not too small to learn from, and nothing is ever divided by a signal
    rate of zero. Listing 8-4; the model's schedule throughout the course.

    Raises ValueError unless 0 < min_signal_rate < max_signal_rate <= 1.
    """

    def __init__(self, min_signal_rate: float = 0.02, max_signal_rate: float = 0.95):
        if not 0 < min_signal_rate < max_signal_rate <= 1:
            raise ValueError(
                "an offset cosine schedule needs 0 < min_signal_rate < max_signal_rate <= 1, got "
                f"min_signal_rate={min_signal_rate}, max_signal_rate={max_signal_rate}"
            )
        self.min_signal_rate, self.max_signal_rate = min_signal_rate, max_signal_rate

    def __call__(self, diffusion_times: Tensor) -> tuple[Tensor, Tensor]:
        start_angle = math.acos(self.max_signal_rate)
        end_angle = math.acos(self.min_signal_rate)
        angles = start_angle + ops.cast(diffusion_times, "float32") * (end_angle - start_angle)
        return ops.sin(angles), ops.cos(angles)

    def get_config(self) -> dict[str, Any]:
        return {
            "min_signal_rate": self.min_signal_rate,
            "max_signal_rate": self.max_signal_rate,
        }


@keras.saving.register_keras_serializable(package="diffusion")
class ShiftedCosineSchedule(Schedule):
    """The cosine schedule with more time at high noise, where an image's layout is decided.

    It multiplies the cosine's ratio of noise to signal by `shift`: noise / signal = shift tan(u),
    where u grows evenly with time. The ends are as for `OffsetCosineSchedule`, but with a lower
    `min_signal_rate`: averaged over 64x64 pixels, a signal rate of 0.02 still shows an image's
    mean colour, which the pure noise that samplers start from does not have.
    Hoogeboom et al. 2023 (arXiv:2301.11093), section 3.1, which shifts the logarithm of the
    signal-to-noise ratio; Lin et al. 2023 (arXiv:2305.08891), section 3.1, on a schedule's end.

    Raises ValueError unless 0 < min_signal_rate < max_signal_rate <= 1 and `shift` is above 0.
    """

    def __init__(
        self, shift: float = 3.0, min_signal_rate: float = 0.005, max_signal_rate: float = 0.95
    ):
        if not (0 < min_signal_rate < max_signal_rate <= 1 and 0 < shift < math.inf):
            raise ValueError(
                "a shifted cosine schedule needs 0 < min_signal_rate < max_signal_rate <= 1 and a "
                f"shift above 0, got min_signal_rate={min_signal_rate}, "
                f"max_signal_rate={max_signal_rate}, shift={shift}"
            )
        self.shift = shift
        self.min_signal_rate, self.max_signal_rate = min_signal_rate, max_signal_rate

    def __call__(self, diffusion_times: Tensor) -> tuple[Tensor, Tensor]:
        ends = math.acos(self.max_signal_rate), math.acos(self.min_signal_rate)
        start, end = (math.atan(math.tan(angle) / self.shift) for angle in ends)
        unshifted = start + ops.cast(diffusion_times, "float32") * (end - start)
        angles = ops.arctan(self.shift * ops.tan(unshifted))
        return ops.sin(angles), ops.cos(angles)

    def get_config(self) -> dict[str, Any]:
        return {
            "shift": self.shift,
            "min_signal_rate": self.min_signal_rate,
            "max_signal_rate": self.max_signal_rate,
        }


SCHEDULES: dict[str, type[Schedule]] = {
    "linear": LinearSchedule,
    "cosine": CosineSchedule,
    "offset_cosine": OffsetCosineSchedule,
    "shifted_cosine": ShiftedCosineSchedule,
}


def warn_about_the_end(schedule: ScheduleContract, divides_by_signal: bool) -> None:
    """Warn if a sampler, which starts at time 1 from pure noise, will go wrong on this schedule.

    divides_by_signal: whether the predicted image is divided by the signal rate and not bounded,
        as with the noise objective and no threshold.
    """
    _, signal_rates = schedule(np.ones((1, 1, 1, 1), "float32"))
    signal_rate = float(np.ravel(ops.convert_to_numpy(signal_rates))[0])
    if signal_rate > 0.2:
        warnings.warn(
            f"{schedule!r} leaves a signal rate of {signal_rate:.2f} at time 1, but samplers start "
            "from pure noise, on which the network was not trained: use one that ends near 0",
            stacklevel=3,
        )
    elif signal_rate < 1e-3 and divides_by_signal:
        warnings.warn(
            f"{schedule!r} ends at a signal rate of {signal_rate:.0e}, by which predicted images "
            "are divided, so they will saturate: pass threshold=0.995, train with the velocity "
            "objective, or use OffsetCosineSchedule",
            stacklevel=3,
        )
