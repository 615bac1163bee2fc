"""Diffusion schedules: diffusion time -> (noise_rates, signal_rates).

A schedule is called with diffusion times in [0, 1], of any shape, and returns two tensors of that
shape. Rates are square roots of variances, so `noise_rates**2 + signal_rates**2 == 1`. It looks at
each time by itself, never at its neighbours in the batch. Write your own: any object with
`__call__` and `get_config` will do; derive from `Schedule` and register it, and it is saved with
the model.
"""

import math

import keras
from keras import ops


class Schedule:
    """What all schedules share: how they are saved and compared."""

    def __call__(self, diffusion_times):
        """Return (noise_rates, signal_rates), both float32 and of the shape of `diffusion_times`.

        `diffusion_times`: a tensor or array of times in [0, 1]; 0 is the picture, 1 is noise.
        """
        raise NotImplementedError

    def get_config(self):
        """Return the arguments that make an equal schedule."""
        return {}

    @classmethod
    def from_config(cls, config):
        """Make the schedule again from what `get_config` returned."""
        return cls(**config)

    def __repr__(self):
        arguments = ", ".join(f"{name}={value}" for name, value in self.get_config().items())
        return f"{type(self).__name__}({arguments})"


@keras.saving.register_keras_serializable(package="diffusion")
class LinearSchedule(Schedule):
    """Variances beta of the single steps grow linearly from `min_rate` to `max_rate`.

    Ho et al. 2020 (arXiv:2006.11239), section 4; listing 8-3. The listing multiplies along the
    batch; this one gives, for any time on its own, the value that the product has there when the
    batch is `steps` equal steps: alpha_bar(t) = (1 - beta_0)(1 - beta_1)...(1 - beta_k), k = t T.

    Raises ValueError unless 0 < min_rate <= max_rate <= 0.1 and steps >= 1.
    """

    def __init__(self, min_rate=0.0001, max_rate=0.02, steps=1000):
        if not 0 < min_rate <= max_rate <= 0.1:
            raise ValueError(
                "a linear schedule needs 0 < min_rate <= max_rate <= 0.1, "
                f"got min_rate={min_rate}, max_rate={max_rate}"
            )
        if steps < 1:
            raise ValueError(f"a linear schedule needs steps >= 1, got {steps}")
        self.min_rate, self.max_rate, self.steps = min_rate, max_rate, steps

    def __call__(self, diffusion_times):
        # log(alpha_bar) is the sum over i = 0..k of log(1 - beta_i). Between i - 1/2 and i + 1/2
        # the sum is an integral (midpoint rule), and log(1 - b) = -(b + b^2/2 + b^3/3 + ...), so
        # that only means of powers of a straight line are needed. Nothing large is subtracted,
        # which keeps the result exact to float32.
        last_step = ops.cast(diffusion_times, "float32") * self.steps
        slope = (self.max_rate - self.min_rate) / self.steps
        low = self.min_rate - 0.5 * slope
        high = self.min_rate + (last_step + 0.5) * slope
        mean_of_betas = (low + high) / 2
        mean_of_squares = (low**2 + low * high + high**2) / 3
        mean_of_cubes = (low + high) * (low**2 + high**2) / 4
        log_alpha_bars = -(last_step + 1) * (
            mean_of_betas + mean_of_squares / 2 + mean_of_cubes / 3
        )
        noise_rates = ops.sqrt(-ops.expm1(log_alpha_bars))
        signal_rates = ops.exp(log_alpha_bars / 2)
        return noise_rates, signal_rates

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
