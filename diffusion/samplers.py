"""Samplers: initial noise -> pictures, by undoing a little noise at a time.

All have one shape, `sampler(denoise, schedule, noise, steps, **options) -> images`, where
`denoise(noisy_images, noise_rates, signal_rates) -> (pred_noises, pred_images)`. Noise and images
are normalised, `(B, S, S, 3)`; `steps` is how often the network is asked, whatever the sampler.
Write your own and pass it to `DiffusionModel.generate`; put it in `SAMPLERS`, under a name of its
own.

All but `ddim` follow one equation. A noisy image is `signal x_0 + noise eps`, and the two rates are
the cosine and the sine of an angle phi. With the `x_0` and `eps` that the network predicts for the
image it is shown, the image moves, as the angle falls, along

    dx / dphi = cos(phi) eps - sin(phi) x_0,

the probability flow (Song et al. 2021, arXiv:2011.13456, eq. 13) written in the angle (Salimans and
Ho 2022, arXiv:2202.00512, appendix D): an ordinary differential equation, for which there are
solvers. Come to time 0, they return the image that the network predicts there.
"""

import functools
import itertools

import keras
import numpy as np
from keras import ops

SPACINGS = ("log_snr", "time")


def ddim(denoise, schedule, noise, steps=20, eta=0.0, seed=None, on_step=None):
    """Sample by denoising diffusion implicit models (DDIM).

    denoise: called with noisy images and rates of shape `(B, 1, 1, 1)`; returns predicted noises
        and images, both of the images' shape.
    schedule: diffusion times in [0, 1] -> (noise_rates, signal_rates).
    noise: the start, `(B, S, S, 3)`, standard normal.
    steps: how many times the network is asked, 1 or more.
    eta: 0 draws the same picture from the same noise every time; 1 adds fresh noise at each step,
        as much as DDPM does.
    seed: int or `keras.random.SeedGenerator` for that fresh noise; ignored if eta is 0.
    on_step: if given, called as `on_step(step, noisy_images, pred_noises, pred_images)` at each
        step, to look on.

    Returns the image predicted at the last step, `(B, S, S, 3)`.
    Song et al. 2020 (arXiv:2010.02502), eq. 12 and 16; listing 8-11.
    Raises ValueError for steps below 1 or eta outside [0, 1].
    """
    steps = _whole_steps(steps)
    if not 0 <= eta <= 1:
        raise ValueError(f"eta must be between 0 (DDIM) and 1 (DDPM), got {eta}")
    if eta > 0:
        seed = _fresh(seed)

    noisy_images = ops.convert_to_tensor(noise, "float32")
    ones = ops.ones((ops.shape(noisy_images)[0], 1, 1, 1))
    for step in range(steps):
        noise_rates, signal_rates = schedule(ones * (1 - step / steps))
        next_noise_rates, next_signal_rates = schedule(ones * (1 - (step + 1) / steps))
        pred_noises, pred_images = denoise(noisy_images, noise_rates, signal_rates)
        if on_step is not None:
            on_step(step, noisy_images, pred_noises, pred_images)
        # Of the noise that is left after this step, sigma is drawn anew and the rest points back.
        if eta > 0:
            lost_signal = ops.sqrt(1 - (signal_rates / next_signal_rates) ** 2)
            sigmas = eta * next_noise_rates / noise_rates * lost_signal
            kept_noise_rates = ops.sqrt(next_noise_rates**2 - sigmas**2)
            noisy_images = next_signal_rates * pred_images + kept_noise_rates * pred_noises
            fresh_noises = keras.random.normal(ops.shape(noisy_images), seed=seed)
            noisy_images = noisy_images + sigmas * fresh_noises
        else:
            noisy_images = next_signal_rates * pred_images + next_noise_rates * pred_noises
    return pred_images


def heun(denoise, schedule, noise, steps=20, spacing="log_snr", on_step=None):
    """Follow the flow by Heun's method, of second order: go, look at the slope there, correct.

    It asks twice for each step of its own, so of an even number of `steps` one is left unused.
    spacing: how the steps are laid; see `grid`. The rest, and the result, is as in `ddim`.
    Karras et al. 2022 (arXiv:2206.00364), algorithm 1 without its noise, here in the angle.
    """
    angles = grid(schedule, (_whole_steps(steps) - 1) // 2 + 1, spacing)
    flow = _Flow(denoise, noise, on_step)
    for here, there in itertools.pairwise(angles):
        first = flow.slope(here)
        flow.images = flow.images + _runge_kutta(flow, first, here, there, order=2)
    return flow.pictures(angles[-1])


def adams_bashforth(denoise, schedule, noise, steps=20, order=2, spacing="log_snr", on_step=None):
    """Follow the flow by a linear multistep method, which remembers the last `order` slopes.

    It lays a polynomial through them and integrates that over the next step, which costs one
    question however high the order. Orders 3 and 4 begin with Runge-Kutta steps (1 and 4 questions
    more), since a poor start would spoil the order; where the steps do not suffice for that, the
    order is lowered.
    order: 1 (Euler's method) to 4. spacing: see `grid`. The rest, and the result, is as in `ddim`.
    Hairer, Norsett and Wanner, "Solving Ordinary Differential Equations I", III.1 and III.5.
    Raises ValueError for another order, spacing, or steps below 1.
    """
    if order not in (1, 2, 3, 4):
        raise ValueError(f"order must be 1, 2, 3 or 4, got {order}")
    steps = _whole_steps(steps)
    more = {1: 0, 2: 0, 3: 1, 4: 4}
    while more[order] and steps - 1 - more[order] < order:
        order -= 1
    angles = grid(schedule, steps - more[order], spacing)
    flow, slopes = _Flow(denoise, noise, on_step), []
    for step, (here, there) in enumerate(itertools.pairwise(angles)):
        slopes = [flow.slope(here), *slopes][:order]
        if order > 2 and step < order - 2:
            change = _runge_kutta(flow, slopes[0], here, there, order - 1)
        else:
            past = angles[step - np.arange(len(slopes))]
            weights = _integration_weights(past, here, there)
            change = sum(weight * slope for weight, slope in zip(weights, slopes, strict=True))
        flow.images = flow.images + change
    return flow.pictures(angles[-1])


def dpm_solver(
    denoise,
    schedule,
    noise,
    steps=20,
    order=2,
    spacing="log_snr",
    stochastic=False,
    seed=None,
    on_step=None,
):
    """Sample by DPM-Solver++(2M): solve exactly all of the flow but the network's part.

    In lambda = log(signal / noise), the flow is linear but for the predicted image, which is taken
    to lie on a line through the last two predictions.
    order: 2, or 1 to take only the last prediction, which is DDIM.
    stochastic: add fresh noise at each step (SDE-DPM-Solver++(2M)); `seed` is as in `ddim`.
    spacing: see `grid`. The rest, and the result, is as in `ddim`.
    Lu et al. 2022 (arXiv:2211.01095), algorithm 2 and, stochastic, section 5.
    Raises ValueError for another order, spacing, or steps below 1.
    """
    if order not in (1, 2):
        raise ValueError(f"order must be 1 or 2, got {order}")
    angles = grid(schedule, _whole_steps(steps), spacing)
    noise_rates, signal_rates = np.sin(angles), np.cos(angles)
    log_snrs = np.log(signal_rates / noise_rates)  # the paper's lambda
    if stochastic:
        seed = _fresh(seed)
    flow, last = _Flow(denoise, noise, on_step), None
    for step, here in enumerate(angles[:-1]):
        pred_images = flow.look(here)[1]
        width = log_snrs[step + 1] - log_snrs[step]
        target = pred_images
        if order == 2 and last is not None:
            ratio = (log_snrs[step] - log_snrs[step - 1]) / width
            target = pred_images + float(0.5 / ratio) * (pred_images - last)
        last = pred_images
        # The paper's e^(-h), which the equation with noise has twice.
        decay = np.exp(-width) ** (2 if stochastic else 1)
        kept = decay * signal_rates[step + 1] / signal_rates[step]
        flow.images = (
            float(kept) * flow.images + float(signal_rates[step + 1] * (1 - decay)) * target
        )
        if stochastic:
            fresh_noises = keras.random.normal(ops.shape(flow.images), seed=seed)
            fresh = noise_rates[step + 1] * np.sqrt(1 - decay)
            flow.images = flow.images + float(fresh) * fresh_noises
    return flow.pictures(angles[-1])


def grid(schedule, count, spacing="log_snr"):
    """Lay `count` angles from noise (time 1) to picture (time 0): float64, falling.

    schedule: its rates at time 1 and 0 are the ends (where a rate is 0 there, 0.001 is taken).
    spacing: "time" lays them evenly in diffusion time, "log_snr" evenly in log(signal / noise).
    Raises ValueError for another spacing.
    """
    if spacing not in SPACINGS:
        raise ValueError(f"no spacing {spacing!r}: choose one of {', '.join(SPACINGS)}")
    times = np.linspace(1, 0, max(count, 2))
    noise_rates, signal_rates = (
        np.float64(ops.convert_to_numpy(rates)) for rates in schedule(times.astype("float32"))
    )
    angles = np.arctan2(np.maximum(noise_rates, 1e-3), np.maximum(signal_rates, 1e-3))
    if spacing == "log_snr":
        first, *_, last = np.log(np.tan(angles))
        angles = np.arctan(np.exp(np.linspace(first, last, len(angles))))
    return angles[:count]


class _Flow:
    """The image on its way, and what the network says of it at an angle."""

    def __init__(self, denoise, noise, on_step):
        self.denoise, self.on_step, self.asked = denoise, on_step, 0
        self.images = ops.convert_to_tensor(noise, "float32")
        self.ones = ops.ones((ops.shape(self.images)[0], 1, 1, 1))

    def look(self, angle, images=None):
        """Ask for (pred_noises, pred_images) of the image, or of another in its place."""
        images = self.images if images is None else images
        rates = float(np.sin(angle)), float(np.cos(angle))
        predictions = self.denoise(images, *(self.ones * rate for rate in rates))
        if self.on_step is not None:
            self.on_step(self.asked, images, *predictions)
        self.asked += 1
        return predictions

    def slope(self, angle, images=None):
        """The change of the image with the angle, dx / dphi."""
        pred_noises, pred_images = self.look(angle, images)
        return float(np.cos(angle)) * pred_noises - float(np.sin(angle)) * pred_images

    def pictures(self, angle):
        """The end: what the network takes the image for."""
        return self.look(angle)[1]


def _runge_kutta(flow, slope, here, there, order):
    """The change over a step by Heun's second-order or Kutta's third-order method."""
    width = float(there - here)
    if order == 2:
        return width / 2 * (slope + flow.slope(there, flow.images + width * slope))
    middle = flow.slope((here + there) / 2, flow.images + width / 2 * slope)
    end = flow.slope(there, flow.images + width * (2 * middle - slope))
    return width / 6 * (slope + 4 * middle + end)


def _integration_weights(nodes, start, end):
    """Weights w so that sum(w f(nodes)) is the integral from start to end of the polynomial."""
    width, powers = end - start, np.arange(len(nodes))
    moments = width / (powers + 1)  # of ((x - start) / width) ** powers
    return np.linalg.solve(((nodes - start) / width) ** powers[:, None], moments).tolist()


def _whole_steps(steps):
    if int(steps) != steps or steps < 1:
        raise ValueError(f"steps must be a whole number, 1 or more, got {steps}")
    return int(steps)


def _fresh(seed):
    """A generator of noise that is not the initial noise, though that came from the same seed."""
    if isinstance(seed, keras.random.SeedGenerator):
        return seed
    generator = keras.random.SeedGenerator(seed)
    generator.next()  # what this seed draws first may be the initial noise: not fresh any more
    return generator


SAMPLERS = {
    "ddim": ddim,
    "ddpm": functools.partial(ddim, eta=1.0),
    "heun": heun,
    "adams_bashforth": adams_bashforth,
    "dpm_solver": dpm_solver,
    "dpm_solver_sde": functools.partial(dpm_solver, stochastic=True),
}
