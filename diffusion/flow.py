"""The way from noise to picture as an ordinary differential equation, and steps along it.

A noisy image is `signal x_0 + noise eps`, and the two rates are the cosine and the sine of an angle
phi. With the `x_0` and `eps` that the network predicts for the image it is shown, the image moves,
as the angle falls, along

    dx / dphi = cos(phi) eps - sin(phi) x_0,

the probability flow (Song et al. 2021, arXiv:2011.13456, eq. 13) written in the angle (Salimans and
Ho 2022, arXiv:2202.00512, appendix D). The solvers of `samplers` follow it.
"""

import numpy as np
from keras import ops

SPACINGS = ("log_snr", "time")


def solver_angles(schedule, count, spacing="log_snr"):
    """Lay `count` angles from noise (time 1) to picture (time 0): float64, falling.

    schedule: its rates at time 1 and 0 are the ends (where a rate is 0 there, 0.001 is taken).
    spacing: "time" lays them evenly in diffusion time, "log_snr" evenly in log(signal / noise).
    Raises ValueError for another spacing.
    """
    if spacing not in SPACINGS:
        raise ValueError(f"no spacing {spacing!r}: choose one of {', '.join(SPACINGS)}")
    angles = angles_at(schedule, np.linspace(1, 0, max(count, 2)))
    angles = np.clip(angles, 1e-3, np.pi / 2 - 1e-3)
    if spacing == "log_snr":
        first, *_, last = np.log(np.tan(angles))
        angles = np.arctan(np.exp(np.linspace(first, last, len(angles))))
    return angles[:count]


def angles_at(schedule, times):
    """The schedule's angles at `times` (N,): float64, tan(angle) = noise rate / signal rate."""
    rates = schedule(np.asarray(times, "float32"))
    noise_rates, signal_rates = (ops.convert_to_numpy(each).astype("float64") for each in rates)
    return np.arctan2(noise_rates, signal_rates)


class ProbabilityFlow:
    """The image on its way, and what the network says of it at an angle."""

    def __init__(self, denoise, noise, on_step):
        self.denoise, self.on_step, self.evaluations = denoise, on_step, 0
        self.images = ops.convert_to_tensor(noise, "float32")
        self.ones = ops.ones((ops.shape(self.images)[0], 1, 1, 1))

    def predict(self, angle, images=None):
        """Ask for (pred_noises, pred_images) of the image, or of another in its place."""
        images = self.images if images is None else images
        rates = float(np.sin(angle)), float(np.cos(angle))
        predictions = self.denoise(images, *(self.ones * rate for rate in rates))
        if self.on_step is not None:
            self.on_step(self.evaluations, images, *predictions)
        self.evaluations += 1
        return predictions

    def slope(self, angle, images=None):
        """The change of the image with the angle, dx / dphi."""
        pred_noises, pred_images = self.predict(angle, images)
        return float(np.cos(angle)) * pred_noises - float(np.sin(angle)) * pred_images

    def final_images(self, angle):
        """The end: what the network takes the image for."""
        return self.predict(angle)[1]


def runge_kutta(flow, slope, here, there, order):
    """The change over a step by Heun's second-order or Kutta's third-order method."""
    width = float(there - here)
    if order == 2:
        return width / 2 * (slope + flow.slope(there, flow.images + width * slope))
    middle = flow.slope((here + there) / 2, flow.images + width / 2 * slope)
    end = flow.slope(there, flow.images + width * (2 * middle - slope))
    return width / 6 * (slope + 4 * middle + end)


def integration_weights(nodes, start, end):
    """Weights w so that sum(w f(nodes)) is the integral from start to end of the polynomial."""
    width, powers = end - start, np.arange(len(nodes))
    moments = width / (powers + 1)  # of ((x - start) / width) ** powers
    return np.linalg.solve(((nodes - start) / width) ** powers[:, None], moments).tolist()
