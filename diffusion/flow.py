"""The path from noise to image as an ordinary differential equation, and steps along it.

A noisy image is `signal x_0 + noise eps`, and its two rates are the cosine and sine of an angle
phi. Let the network predict `x_0` and `eps`; as the angle falls, the image then moves along

    dx / dphi = cos(phi) eps - sin(phi) x_0,

the probability flow (Song et al. 2021, arXiv:2011.13456, eq. 13) written in the angle (Salimans and
Ho 2022, arXiv:2202.00512, appendix D). The solvers in `samplers` follow it.
"""

import numpy as np
from keras import ops

from diffusion.support.contracts import Denoise, OnStep, Schedule, Tensor

SPACINGS = ("log_snr", "time")


def solver_angles(schedule: Schedule, count: int, spacing: str = "log_snr") -> np.ndarray:
    """Return `count` angles from noise (time 1) to the image (time 0): float64, strictly falling.

    schedule: its rates at times 1 and 0 are the ends; a rate of 0 is replaced by 0.001.
    spacing: "time" spaces the angles evenly in diffusion time, "log_snr" in log(signal / noise).
    Raises ValueError for another spacing, and where two angles coincide: a solver would divide by
    a step of width 0.
    """
    if spacing not in SPACINGS:
        raise ValueError(f"no spacing {spacing!r}: choose one of {', '.join(SPACINGS)}")
    angles = angles_at(schedule, np.linspace(1, 0, max(count, 2)))
    angles = np.clip(angles, 1e-3, np.pi / 2 - 1e-3)
    if spacing == "log_snr":
        first, *_, last = np.log(np.tan(angles))
        angles = np.arctan(np.exp(np.linspace(first, last, len(angles))))
    angles = angles[:count]
    if (np.diff(angles) >= 0).any():
        raise ValueError(
            f"only {len(np.unique(angles))} of the solver's {count} angles on {schedule!r} differ "
            f"with spacing={spacing!r}: use fewer steps, or spacing='log_snr'"
        )
    return angles


def angles_at(schedule: Schedule, times: Tensor) -> np.ndarray:
    """Return the schedule's angles at `times` (N,): tan(angle) = noise rate / signal rate."""
    rates = schedule(np.asarray(times, "float32"))
    noise_rates, signal_rates = (ops.convert_to_numpy(each).astype("float64") for each in rates)
    return np.arctan2(noise_rates, signal_rates)


def ddim_angles(schedule: Schedule, steps: int) -> np.ndarray:
    """Return the angles of DDIM with this many steps, from the image up: float64 (steps + 1,).

    First 0, the image itself, then the schedule's at times 1/steps, 2/steps, ..., 1. (DDIM
    evaluates the network at these times and returns what it predicts at the lowest of them.)
    """
    return np.append(0.0, angles_at(schedule, np.linspace(0, 1, steps + 1)[1:]))


class ProbabilityFlow:
    """The current image, and what the network predicts for it at a given angle."""

    def __init__(self, denoise: Denoise, noise: Tensor, on_step: OnStep | None):
        self.denoise, self.on_step, self.evaluations = denoise, on_step, 0
        self.images = ops.convert_to_tensor(noise, "float32")
        self.ones = ops.ones((ops.shape(self.images)[0], 1, 1, 1))

    def predict(self, angle: float, images: Tensor = None) -> tuple[Tensor, Tensor]:
        """Return (pred_noises, pred_images) for the current images, or for others."""
        images = self.images if images is None else images
        rates = float(np.sin(angle)), float(np.cos(angle))
        predictions = self.denoise(images, *(self.ones * rate for rate in rates))
        if self.on_step is not None:
            self.on_step(self.evaluations, images, *predictions)
        self.evaluations += 1
        return predictions

    def slope(self, angle: float, images: Tensor = None) -> Tensor:
        """Return dx / dphi = cos(phi) eps - sin(phi) x_0."""
        pred_noises, pred_images = self.predict(angle, images)
        return float(np.cos(angle)) * pred_noises - float(np.sin(angle)) * pred_images

    def final_images(self, angle: float) -> Tensor:
        """Return the images that the network predicts at the last angle."""
        return self.predict(angle)[1]


def runge_kutta(
    flow: ProbabilityFlow, slope: Tensor, here: float, there: float, order: int
) -> Tensor:
    """Return the change over a step by Heun's second-order or Kutta's third-order method.

    slope: that at `here`, already evaluated.
    """
    width = float(there - here)
    if order == 2:
        return width / 2 * (slope + flow.slope(there, flow.images + width * slope))
    middle = flow.slope((here + there) / 2, flow.images + width / 2 * slope)
    end = flow.slope(there, flow.images + width * (2 * middle - slope))
    return width / 6 * (slope + 4 * middle + end)


def integration_weights(nodes: np.ndarray, start: float, end: float) -> list[float]:
    """Return weights w such that sum(w f(nodes)) is the integral of f from `start` to `end`.

    Exact for polynomials f of a degree below the number of nodes.
    """
    width, powers = end - start, np.arange(len(nodes))
    moments = width / (powers + 1)  # the integrals of ((x - start) / width) ** powers
    return np.linalg.solve(((nodes - start) / width) ** powers[:, None], moments).tolist()
