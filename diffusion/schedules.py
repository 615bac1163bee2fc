"""Diffusion schedules: diffusion time -> (noise_rates, signal_rates).

A schedule is called with diffusion times in [0, 1], of any shape, and returns two tensors of that
shape. Rates are square roots of variances, so `noise_rates**2 + signal_rates**2 == 1`. It looks at
each time by itself, never at its neighbours in the batch. Write your own: any object with
`__call__`, `get_config` and `from_config` will do; derive from `Schedule`, register it as below,
and it is saved with the model.
"""

import math

import keras
import numpy as np
from keras import ops

from diffusion.support.validation import Configured


class Schedule(Configured):
    """What all schedules share: how they are called and saved."""

    def __call__(self, diffusion_times):
        """Return (noise_rates, signal_rates), both float32 and of the shape of `diffusion_times`.

        `diffusion_times`: a tensor or array of times in [0, 1]; 0 is the picture, 1 is noise.
        """
        raise NotImplementedError


@keras.saving.register_keras_serializable(package="diffusion")
class LinearSchedule(Schedule):
    """Variances beta of the single steps grow linearly from `min_rate` to `max_rate`.

    Ho et al. 2020 (arXiv:2006.11239), section 4; listing 8-3. The listing multiplies along the
    batch. Here the product (1 - beta_0)(1 - beta_1)...(1 - beta_k) is taken once, over `steps`
    equal steps, and looked up at k = t * steps for each time on its own, between two steps by
    interpolation. At time 0 one step has been made already, as in the listing.

    Raises ValueError unless 0 < min_rate <= max_rate < 1 and steps >= 1.
    """

    def __init__(self, min_rate=0.0001, max_rate=0.02, steps=1000):
        if not 0 < min_rate <= max_rate < 1:
            raise ValueError(
                "a linear schedule needs 0 < min_rate <= max_rate < 1, "
                f"got min_rate={min_rate}, max_rate={max_rate}"
            )
        if steps < 1:
            raise ValueError(f"a linear schedule needs steps >= 1, got {steps}")
        self.min_rate, self.max_rate, self.steps = min_rate, max_rate, steps
        betas = min_rate + np.arange(steps + 1) / steps * (max_rate - min_rate)
        # A product of a thousand factors is a sum of logarithms; float64 keeps it exact.
        self._log_alpha_bars = np.cumsum(np.log1p(-betas)).astype("float32")

    def __call__(self, diffusion_times):
        position = ops.cast(diffusion_times, "float32") * self.steps
        step = ops.clip(ops.floor(position), 0, self.steps - 1)
        here = ops.take(self._log_alpha_bars, ops.cast(step, "int32"))
        there = ops.take(self._log_alpha_bars, ops.cast(step, "int32") + 1)
        log_alpha_bars = here + (position - step) * (there - here)
        return ops.sqrt(-ops.expm1(log_alpha_bars)), ops.exp(log_alpha_bars / 2)

    def get_config(self):
        return {"min_rate": self.min_rate, "max_rate": self.max_rate, "steps": self.steps}


@keras.saving.register_keras_serializable(package="diffusion")
class CosineSchedule(Schedule):
    """A quarter turn from signal to noise: signal cos(t pi/2), noise sin(t pi/2).

    Nichol and Dhariwal 2021 (arXiv:2102.09672), eq. 17 without its offset; listing 8-4.
    """

    def __call__(self, diffusion_times):
        angles = ops.cast(diffusion_times, "float32") * (math.pi / 2)
        return ops.sin(angles), ops.cos(angles)


@keras.saving.register_keras_serializable(package="diffusion")
class OffsetCosineSchedule(Schedule):
    """The cosine's turn, begun late and ended early: signal from `max_` to `min_signal_rate`.

    The steps next to the picture are then not too small to learn from, and the picture is never
    divided by a signal rate of zero. Listing 8-4; the model's schedule throughout the course.

    Raises ValueError unless 0 < min_signal_rate < max_signal_rate <= 1.
    """

    def __init__(self, min_signal_rate=0.02, max_signal_rate=0.95):
        if not 0 < min_signal_rate < max_signal_rate <= 1:
            raise ValueError(
                "an offset cosine schedule needs 0 < min_signal_rate < max_signal_rate <= 1, got "
                f"min_signal_rate={min_signal_rate}, max_signal_rate={max_signal_rate}"
            )
        self.min_signal_rate, self.max_signal_rate = min_signal_rate, max_signal_rate

    def __call__(self, diffusion_times):
        start_angle = math.acos(self.max_signal_rate)
        end_angle = math.acos(self.min_signal_rate)
        angles = start_angle + ops.cast(diffusion_times, "float32") * (end_angle - start_angle)
        return ops.sin(angles), ops.cos(angles)

    def get_config(self):
        return {
            "min_signal_rate": self.min_signal_rate,
            "max_signal_rate": self.max_signal_rate,
        }


SCHEDULES = {
    "linear": LinearSchedule,
    "cosine": CosineSchedule,
    "offset_cosine": OffsetCosineSchedule,
}
