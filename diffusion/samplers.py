"""Samplers: from initial noise to images, removing a little noise at a time.

All have one call shape, `sampler(denoise, schedule, noise, steps, **options) -> images`, where
`denoise(noisy_images, noise_rates, signal_rates) -> (pred_noises, pred_images)`. Noise and images
are normalised, `(B, S, S, 3)`. `steps` is the number of network evaluations, whatever the sampler.
Pass your own to `DiffusionModel.generate`, or add it to `SAMPLERS` under a name.

`ddim` and `ancestral` step from rate to rate of the schedule. The others solve the probability
flow, an ordinary differential equation from noise to image (see `flow`). At time 0 they return the
image that the network predicts there.
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
from diffusion.latents import fresh_generator
from diffusion.support.contracts import Denoise, OnStep, Sampler, Schedule, Seed, Tensor
from diffusion.support.validation import whole_number

VARIANCES = ("small", "large")

_whole_steps = functools.partial(whole_number, "steps", least=1)


def ddim(
    denoise: Denoise,
    schedule: Schedule,
    noise: Tensor,
    steps: int = 20,
    eta: float = 0.0,
    seed: Seed = None,
    on_step: OnStep | None = None,
) -> Tensor:
    """Sample by denoising diffusion implicit models (DDIM).

    denoise: called with noisy images and rates of shape `(B, 1, 1, 1)`; returns predicted noises
        and images, both of the images' shape.
    schedule: diffusion times in [0, 1] -> (noise_rates, signal_rates).
    noise: standard normal noise to start from, `(B, S, S, 3)`.
    steps: number of network evaluations, 1 or more.
    eta: 0 is deterministic: the same noise gives the same images. 1 adds as much fresh noise at
        each step as DDPM does.
    seed: an int or a `keras.random.SeedGenerator` for that fresh noise; unused if eta is 0.
    on_step: a callback, `on_step(step, noisy_images, pred_noises, pred_images)`.

    Returns the images predicted at the last step, `(B, S, S, 3)`.
    Song et al. 2020 (arXiv:2010.02502), eq. 12 and 16; listing 8-11.
    Raises ValueError for steps below 1 or eta outside [0, 1].
    """
    steps = _whole_steps(steps)
    if not 0 <= eta <= 1:
        raise ValueError(f"eta must be between 0 (DDIM) and 1 (DDPM), got {eta}")
    if eta > 0:
        seed = fresh_generator(seed)

    noisy_images = ops.convert_to_tensor(noise, "float32")
    ones = ops.ones((ops.shape(noisy_images)[0], 1, 1, 1))
    next_noise_rates, next_signal_rates = schedule(ones)
    for step in range(steps):
        noise_rates, signal_rates = next_noise_rates, next_signal_rates
        next_noise_rates, next_signal_rates = schedule(ones * (1 - (step + 1) / steps))
        pred_noises, pred_images = denoise(noisy_images, noise_rates, signal_rates)
        if on_step is not None:
            on_step(step, noisy_images, pred_noises, pred_images)
        # Eq. 12: x_{t-1} = signal_{t-1} x_0 + sqrt(noise_{t-1}^2 - sigma^2) eps + sigma fresh
        if eta > 0:
            lost_signal = ops.sqrt(1 - (signal_rates / next_signal_rates) ** 2)
            share = ops.divide_no_nan(eta * next_noise_rates, noise_rates)
            sigmas = share * lost_signal  # eq. 16
            kept_noise_rates = ops.sqrt(next_noise_rates**2 - sigmas**2)
            noisy_images = next_signal_rates * pred_images + kept_noise_rates * pred_noises
            fresh_noises = keras.random.normal(ops.shape(noisy_images), seed=seed)
            noisy_images = noisy_images + sigmas * fresh_noises
        else:
            noisy_images = next_signal_rates * pred_images + next_noise_rates * pred_noises
    return pred_images


def ancestral(
    denoise: Denoise,
    schedule: Schedule,
    noise: Tensor,
    steps: int = 20,
    variance: str = "small",
    seed: Seed = None,
    on_step: OnStep | None = None,
) -> Tensor:
    """Sample as DDPM does: back along the Markov chain, with fresh noise at each step.

    Each step draws from a Gaussian around the mean of q(x_{t-1} | x_t, x_0), with the predicted
    image for x_0. The chain is that of the schedule's rates at times 1, 1 - 1/steps, ..., 0.
    variance: "small" is that of q(x_{t-1} | x_t, x_0) (the same as `ddim` with eta 1), exact for
        data at one point; "large" is beta_t, of the forward step, exact for standard normal data.
    Other arguments and the result are as for `ddim`.
    Ho et al. 2020 (arXiv:2006.11239), algorithm 2, eq. 7 and section 3.2.
    Raises ValueError for another variance, or steps below 1.
    """
    if variance not in VARIANCES:
        raise ValueError(f"no variance {variance!r}: choose one of {', '.join(VARIANCES)}")
    steps, seed = _whole_steps(steps), fresh_generator(seed)
    angles = angles_at(schedule, np.linspace(1, 0, steps + 1))
    flow = ProbabilityFlow(denoise, noise, on_step)
    for here, there in itertools.pairwise(angles):
        pred_images = flow.predict(here)[1]
        if here == 0:
            continue  # no noise is left; a chain's schedule is there just above time 0
        # beta = 1 - alpha = 1 - cos^2(here) / cos^2(there), without loss of digits
        beta = np.sin(here + there) * np.sin(here - there) / np.cos(there) ** 2
        shrunk = np.sin(there) ** 2 / np.sin(here) ** 2  # (1 - alpha_bar_{t-1}) / (1 - alpha_bar_t)
        # Eq. 7: mean = sqrt(alpha_bar_{t-1}) beta / (1 - alpha_bar_t) x_0 + sqrt(alpha) shrunk x_t
        image_share = np.cos(there) * beta / np.sin(here) ** 2
        noisy_share = np.sqrt(1 - beta) * shrunk
        means = float(image_share) * pred_images + float(noisy_share) * flow.images
        deviation = np.sqrt(beta * shrunk if variance == "small" else beta)
        fresh_noises = keras.random.normal(ops.shape(means), seed=seed)
        flow.images = means + float(deviation) * fresh_noises
    return pred_images


def heun(
    denoise: Denoise,
    schedule: Schedule,
    noise: Tensor,
    steps: int = 20,
    spacing: str = "log_snr",
    on_step: OnStep | None = None,
) -> Tensor:
    """Solve the flow by Heun's method, of second order: step, evaluate the slope there, correct.

    Each of its own steps takes two evaluations and the end takes one, so an even number of `steps`
    leaves one unused.
    spacing: of the solver's angles; see `flow.solver_angles`, which raises ValueError where they
        coincide. Other arguments and the result are as for `ddim`.
    Karras et al. 2022 (arXiv:2206.00364), algorithm 1 without its noise, here in the angle.
    """
    angles = solver_angles(schedule, (_whole_steps(steps) - 1) // 2 + 1, spacing)
    flow = ProbabilityFlow(denoise, noise, on_step)
    for here, there in itertools.pairwise(angles):
        first = flow.slope(here)
        flow.images = flow.images + runge_kutta(flow, first, here, there, order=2)
    return flow.final_images(angles[-1])


def adams_bashforth(
    denoise: Denoise,
    schedule: Schedule,
    noise: Tensor,
    steps: int = 20,
    order: int = 2,
    spacing: str = "log_snr",
    on_step: OnStep | None = None,
) -> Tensor:
    """Solve the flow by a linear multistep method, from the last `order` slopes.

    It fits a polynomial to them and integrates it over the next step, at one network evaluation
    whatever the order. Orders 3 and 4 start with Runge-Kutta steps (1 and 4 extra evaluations),
    because a poor start would spoil the order. Where `steps` are too few for that, the order is
    lowered.
    order: 1 (Euler's method) to 4. spacing: see `heun`.
    Other arguments and the result are as for `ddim`.
    Hairer, Norsett and Wanner, "Solving Ordinary Differential Equations I", III.1 and III.5.
    Raises ValueError for another order, spacing, or steps below 1.
    """
    if order not in (1, 2, 3, 4):
        raise ValueError(f"order must be 1, 2, 3 or 4, got {order}")
    steps = _whole_steps(steps)
    extra = {1: 0, 2: 0, 3: 1, 4: 4}
    while extra[order] and steps - 1 - extra[order] < order:
        order -= 1
    angles = solver_angles(schedule, steps - extra[order], spacing)
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
    denoise: Denoise,
    schedule: Schedule,
    noise: Tensor,
    steps: int = 20,
    order: int = 2,
    spacing: str = "log_snr",
    stochastic: bool = False,
    seed: Seed = None,
    on_step: OnStep | None = None,
) -> Tensor:
    """Sample by DPM-Solver++(2M): solve all of the flow exactly but the network's part.

    In lambda = log(signal / noise) the flow is linear except for the predicted image, which is
    extrapolated along a line through the last two predictions.
    order: 2, or 1 to use the last prediction alone, which is DDIM.
    stochastic: add fresh noise at each step (SDE-DPM-Solver++(2M)), drawn from `seed`.
    spacing: see `heun`. Other arguments and the result are as for `ddim`.
    Lu et al. 2022 (arXiv:2211.01095), algorithm 2 and, stochastic, section 5.
    Raises ValueError for another order, spacing, or steps below 1.
    """
    if order not in (1, 2):
        raise ValueError(f"order must be 1 or 2, got {order}")
    angles = solver_angles(schedule, _whole_steps(steps), spacing)
    noise_rates, signal_rates = np.sin(angles), np.cos(angles)
    log_snrs = np.log(signal_rates / noise_rates)  # the paper's lambda
    if stochastic:
        seed = fresh_generator(seed)
    flow, last = ProbabilityFlow(denoise, noise, on_step), None
    for step, here in enumerate(angles[:-1]):
        pred_images = flow.predict(here)[1]
        width = log_snrs[step + 1] - log_snrs[step]  # the paper's h
        target = pred_images
        if order == 2 and last is not None:
            ratio = (log_snrs[step] - log_snrs[step - 1]) / width
            target = pred_images + float(0.5 / ratio) * (pred_images - last)
        last = pred_images
        # x_{t-1} = e^-h signal_{t-1} / signal_t x_t + signal_{t-1} (1 - e^-h) x_0; e^-2h with noise
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


# The scripts read these names from the source: keep the keys plain strings.
SAMPLERS: dict[str, Sampler] = {
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
