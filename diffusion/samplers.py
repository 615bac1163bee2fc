"""Samplers: initial noise -> pictures, by undoing a little noise at a time.

All have one shape, `sampler(denoise, schedule, noise, steps, **options) -> images`, where
`denoise(noisy_images, noise_rates, signal_rates) -> (pred_noises, pred_images)`. Noise and images
are normalised, `(B, S, S, 3)`; `steps` is how often the network is asked, whatever the sampler.
Write your own and pass it to `DiffusionModel.generate`; put it in `SAMPLERS`, under a name of its
own.

`ddim` and `ancestral` step from rate to rate of the schedule. The others are solvers of the flow
from noise to picture, an ordinary differential equation (see `flow`). Come to time 0, they return
the image that the network predicts there.
"""

import functools
import itertools

import keras
import numpy as np
from keras import ops

from diffusion.flow import (
    ProbabilityFlow,
    angles_at,
    integration_weights,
    runge_kutta,
    solver_angles,
)
from diffusion.support.validation import whole_number

VARIANCES = ("small", "large")

_whole_steps = functools.partial(whole_number, "steps", least=1)


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
    next_noise_rates, next_signal_rates = schedule(ones)
    for step in range(steps):
        noise_rates, signal_rates = next_noise_rates, next_signal_rates
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


def ancestral(denoise, schedule, noise, steps=20, variance="small", seed=None, on_step=None):
    """Sample as DDPM does: go back along the Markov chain, with fresh noise at each step.

    Each step draws from a Gaussian about the mean of q(x_{t-1} | x_t, x_0), with the predicted
    image for x_0. The chain is that of the schedule's rates at times 1, 1 - 1/steps, ..., 0.
    variance: "small" is that of q(x_{t-1} | x_t, x_0) (the same as `ddim` with eta 1), right for
        data of one picture; "large" is beta_t, of the step forward, right for data that are noise.
    The rest, and the result, is as in `ddim`.
    Ho et al. 2020 (arXiv:2006.11239), algorithm 2, eq. 7 and section 3.2.
    Raises ValueError for another variance, or steps below 1.
    """
    if variance not in VARIANCES:
        raise ValueError(f"no variance {variance!r}: choose one of {', '.join(VARIANCES)}")
    steps, seed = _whole_steps(steps), _fresh(seed)
    angles = angles_at(schedule, np.linspace(1, 0, steps + 1))
    flow = ProbabilityFlow(denoise, noise, on_step)
    for here, there in itertools.pairwise(angles):
        pred_images = flow.predict(here)[1]
        # beta = 1 - alpha = 1 - cos^2(here) / cos^2(there), so that no digits are lost
        beta = np.sin(here + there) * np.sin(here - there) / np.cos(there) ** 2
        shrunk = np.sin(there) ** 2 / np.sin(here) ** 2  # (1 - alpha_bar_{t-1}) / (1 - alpha_bar_t)
        image_share = np.cos(there) * beta / np.sin(here) ** 2
        noisy_share = np.sqrt(1 - beta) * shrunk
        means = float(image_share) * pred_images + float(noisy_share) * flow.images
        deviation = np.sqrt(beta * shrunk if variance == "small" else beta)
        fresh_noises = keras.random.normal(ops.shape(means), seed=seed)
        flow.images = means + float(deviation) * fresh_noises
    return pred_images


def heun(denoise, schedule, noise, steps=20, spacing="log_snr", on_step=None):
    """Follow the flow by Heun's method, of second order: go, look at the slope there, correct.

    It asks twice for each step of its own, so of an even number of `steps` one is left unused.
    spacing: how the steps are laid; see `solver_angles`. The rest, and the result, is as in `ddim`.
    Karras et al. 2022 (arXiv:2206.00364), algorithm 1 without its noise, here in the angle.
    """
    angles = solver_angles(schedule, (_whole_steps(steps) - 1) // 2 + 1, spacing)
    flow = ProbabilityFlow(denoise, noise, on_step)
    for here, there in itertools.pairwise(angles):
        first = flow.slope(here)
        flow.images = flow.images + runge_kutta(flow, first, here, there, order=2)
    return flow.final_images(angles[-1])


def adams_bashforth(denoise, schedule, noise, steps=20, order=2, spacing="log_snr", on_step=None):
    """Follow the flow by a linear multistep method, which remembers the last `order` slopes.

    It lays a polynomial through them and integrates that over the next step, which costs one
    question however high the order. Orders 3 and 4 begin with Runge-Kutta steps (1 and 4 questions
    more), since a poor start would spoil the order; where the steps do not suffice for that, the
    order is lowered.
    order: 1 (Euler's method) to 4. spacing: see `solver_angles`.
    The rest, and the result, is as in `ddim`.
    Hairer, Norsett and Wanner, "Solving Ordinary Differential Equations I", III.1 and III.5.
    Raises ValueError for another order, spacing, or steps below 1.
    """
    if order not in (1, 2, 3, 4):
        raise ValueError(f"order must be 1, 2, 3 or 4, got {order}")
    steps = _whole_steps(steps)
    more = {1: 0, 2: 0, 3: 1, 4: 4}
    while more[order] and steps - 1 - more[order] < order:
        order -= 1
    angles = solver_angles(schedule, steps - more[order], spacing)
    flow, slopes = ProbabilityFlow(denoise, noise, on_step), []
    for step, (here, there) in enumerate(itertools.pairwise(angles)):
        slopes = [flow.slope(here), *slopes][:order]
        if order > 2 and step < order - 2:
            change = runge_kutta(flow, slopes[0], here, there, order - 1)
        else:
            past = angles[step - np.arange(len(slopes))]
            weights = integration_weights(past, here, there)
            change = sum(weight * slope for weight, slope in zip(weights, slopes, strict=True))
        flow.images = flow.images + change
    return flow.final_images(angles[-1])


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
    spacing: see `solver_angles`. The rest, and the result, is as in `ddim`.
    Lu et al. 2022 (arXiv:2211.01095), algorithm 2 and, stochastic, section 5.
    Raises ValueError for another order, spacing, or steps below 1.
    """
    if order not in (1, 2):
        raise ValueError(f"order must be 1 or 2, got {order}")
    angles = solver_angles(schedule, _whole_steps(steps), spacing)
    noise_rates, signal_rates = np.sin(angles), np.cos(angles)
    log_snrs = np.log(signal_rates / noise_rates)  # the paper's lambda
    if stochastic:
        seed = _fresh(seed)
    flow, last = ProbabilityFlow(denoise, noise, on_step), None
    for step, here in enumerate(angles[:-1]):
        pred_images = flow.predict(here)[1]
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
    return flow.final_images(angles[-1])


def thresholded(denoise, low, high, percentile=0.995):
    """Return a `denoise` whose predicted images keep to the range of pictures.

    Dynamic thresholding: where more than 1 - `percentile` of a predicted image lies outside the
    range, it is clipped to a range so much wider as to hold `percentile` of it, and shrunk to the
    range of pictures; else it is only clipped. The predicted noise is made to fit.
    low, high: what black and white are in normalised images; numbers, or one for each colour.
    percentile: in (0, 1]; 1 shrinks and never clips.
    Saharia et al. 2022 (arXiv:2205.11487), section 2.3.
    Raises ValueError for another percentile.
    """
    if not 0 < percentile <= 1:
        raise ValueError(f"threshold must be above 0 and at most 1, got {percentile}")
    middle, reach = (low + high) / 2, (high - low) / 2

    def thresholded_denoise(noisy_images, noise_rates, signal_rates):
        _, pred_images = denoise(noisy_images, noise_rates, signal_rates)
        pixels = (pred_images - middle) / reach  # in [-1, 1], but for what is too bright or dark
        widths = ops.quantile(ops.abs(pixels), percentile, axis=(1, 2, 3), keepdims=True)
        widths = ops.maximum(widths, 1.0)
        pred_images = middle + reach * ops.clip(pixels, -widths, widths) / widths
        return (noisy_images - signal_rates * pred_images) / noise_rates, pred_images

    return thresholded_denoise


def _fresh(seed):
    """A generator of noise that is not the initial noise, though that came from the same seed."""
    if isinstance(seed, keras.random.SeedGenerator):
        return seed
    generator = keras.random.SeedGenerator(seed)
    generator.next()  # what this seed draws first may be the initial noise: not fresh any more
    return generator


SAMPLERS = {
    "ddim": ddim,
    "ddpm": ancestral,
    "ddpm_large": functools.partial(ancestral, variance="large"),
    "heun": heun,
    "adams_bashforth": adams_bashforth,
    "adams_bashforth_3": functools.partial(adams_bashforth, order=3),
    "adams_bashforth_4": functools.partial(adams_bashforth, order=4),
    "dpm_solver": dpm_solver,
    "dpm_solver_sde": functools.partial(dpm_solver, stochastic=True),
}
