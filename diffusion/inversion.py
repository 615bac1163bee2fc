"""Inversion: from an image to the noise from which DDIM draws it.

DDIM is deterministic, so its steps can be taken upwards. In the angle (see `flow`), one step from
`there` down to `here`, narrower by delta, is a rotation:

    x_here = cos(delta) x_there - sin(delta) v(x_there),    v = cos(there) eps - sin(there) x_0.

Upwards, `x_there` is unknown and so is `v(x_there)`. Song et al. 2020 (arXiv:2010.02502, section
4.3) take `v(x_here)` for it, which leaves an error of first order in the step. Iterating the
equation instead, `x_there = (x_here + sin(delta) v(x_there)) / cos(delta)`, removes that error.
A coupled pair of images removes it by construction.

The first step is different. An image has no noise, but a schedule may begin with some: the offset
cosine's noise rate at time 0 is 0.31, and no network has seen less. However many the steps, the
first one is wide, from angle 0 to the schedule's at time 1/steps, and nothing can be evaluated
where it starts. DDIM's last step, seen from above, returns the predicted image. So the first step
upwards must solve "which noisy image is predicted to be this one?", and that is always iterated.
"""

import itertools
from typing import Any

import numpy as np
from keras import ops

from diffusion.flow import ProbabilityFlow, ddim_angles
from diffusion.support.contracts import Denoise, OnStep, Schedule, Tensor
from diffusion.support.pixels import image_batch
from diffusion.support.validation import whole_number


def invert(
    denoise: Denoise,
    schedule: Schedule,
    images: Tensor,
    steps: int = 20,
    corrections: int = 0,
    first_iterations: int = 10,
    on_step: OnStep | None = None,
) -> Tensor:
    """Return the noise from which `samplers.ddim`, in as many steps, draws these images.

    It has the call shape of a sampler, so `DiffusionModel.reverse_diffusion` takes it as one, with
    labels and guidance: images go in, noise comes out.
    images: normalised, (B, S, S, 3).
    corrections: iterations of the implicit equation in each step but the first, accelerated (see
        `solved_step`). 0 is plain DDIM inversion, whose error is of first order in 1/steps; 2 leave
        a small fraction of it.
    first_iterations: the same for the first step, plain. More of them reproduce finer detail, as
        noise of larger variance.
    The network is evaluated `first_iterations + (steps - 1) * (1 + corrections)` times.
    Song et al. 2020 (arXiv:2010.02502), section 4.3; the iteration: Pan et al. 2023
    (arXiv:2309.04907) and Garibi et al. 2024 (arXiv:2403.14602).
    Raises ValueError for steps below 1 or negative iterations. A self-conditioned model remembers
    its previous prediction, so its steps can be inverted only approximately.
    """
    angles = ddim_angles(schedule, whole_number("steps", steps, least=1))
    corrections = whole_number("corrections", corrections, least=0)
    first_iterations = whole_number("first_iterations", first_iterations, least=0)
    flow = ProbabilityFlow(denoise, images, on_step)
    for here, there in itertools.pairwise(angles):
        if here == 0:
            flow.images = _first_step(flow, there, first_iterations)
        else:
            guess = _rotated(flow.images, flow.slope(here), there - here)
            flow.images = solved_step(flow, guess, here, there, corrections)
    return flow.images


def solved_step(
    flow: ProbabilityFlow, guess: Tensor, here: float, there: float, iterations: int
) -> Tensor:
    """Return the image at angle `there` from which DDIM steps down to `flow.images` at `here`.

    Solves x = (x_here + sin(delta) v(x)) / cos(delta) by fixed-point iteration from `guess`. From
    the second iteration on, each starts where a line through the last two residuals is smallest:
    Anderson's acceleration with a memory of one, as in Pan et al. 2023 (arXiv:2309.04907). Without
    it the steps near pure noise converge slowly.
    """
    last = None
    for _ in range(iterations):
        found = _rotated(flow.images, flow.slope(there, guess), there - here, implicit=True)
        residual = found - guess
        guess = found
        if last is not None:
            change = residual - last[1]
            share = _dot(residual, change) / ops.maximum(_dot(change, change), 1e-20)
            guess = found - ops.clip(share, -20.0, 20.0) * (found - last[0])
        last = found, residual
    return guess


def coupled_invert(
    denoise: Denoise,
    schedule: Schedule,
    images: Tensor,
    steps: int = 20,
    mixing: float = 0.93,
    on_step: OnStep | None = None,
) -> tuple[Tensor, Tensor]:
    """Return the two noises from which `coupled_ddim` draws these images, exactly.

    Exactly means up to the rounding of float32: each step of `coupled_ddim` is undone with the same
    network evaluations in the opposite order, so nothing has to be solved or approximated.
    Arguments as for `coupled_ddim`, but `images` (B, S, S, 3), normalised, for `noise`.
    Wallace et al. 2022 (arXiv:2211.12446), the inversion process.
    Raises ValueError for steps below 1 or a mixing outside (0.5, 1].
    """
    angles, mixing = _coupled(schedule, steps, mixing)
    flow = ProbabilityFlow(denoise, images, on_step)
    one = other = flow.images
    for here, there in itertools.pairwise(angles):
        kept, noise_share = _noise_step(here, there)
        other = (other - (1 - mixing) * one) / mixing
        one = (one - (1 - mixing) * other) / mixing
        other = (other - noise_share * flow.predict(there, one)[0]) / kept
        one = (one - noise_share * flow.predict(there, other)[0]) / kept
    return one, other


def coupled_ddim(
    denoise: Denoise,
    schedule: Schedule,
    noise: Tensor,
    steps: int = 20,
    partner: Tensor = None,
    mixing: float = 0.93,
    on_step: OnStep | None = None,
) -> Tensor:
    """Sample by DDIM steps on two coupled copies of the image, which can be undone exactly.

    Each copy takes its predicted noise from the other one (EDICT), which makes a step a sequence of
    linear changes, each of one copy by a function of the other. `mixing` then averages the two a
    little, so that they stay together. Two network evaluations a step.
    partner: the second copy's noise, as `coupled_invert` returns it; default `noise` itself.
    mixing: share of its own value that a copy keeps, in (0.5, 1]; undoing a step divides by it.
    Other arguments and the result are as for `samplers.ddim`.
    Wallace et al. 2022 (arXiv:2211.12446), the denoising process.
    Raises ValueError for steps below 1 or a mixing outside (0.5, 1].
    """
    angles, mixing = _coupled(schedule, steps, mixing)
    flow = ProbabilityFlow(denoise, noise, on_step)
    one = flow.images
    other = one if partner is None else ops.convert_to_tensor(partner, "float32")
    for there, here in itertools.pairwise(angles[::-1]):
        kept, noise_share = _noise_step(here, there)
        one = kept * one + noise_share * flow.predict(there, other)[0]
        other = kept * other + noise_share * flow.predict(there, one)[0]
        one = mixing * one + (1 - mixing) * other
        other = mixing * other + (1 - mixing) * one
    return one


def find_noise(
    model: Any, images: Tensor, steps: int = 20, corrections: int = 2, **options: Any
) -> Tensor:
    """Return the noise (B, S, S, 3) from which `model.generate`, in as many steps, draws images.

    images: (B, S, S, 3), uint8 or float in [0, 1], of the model's size.
    options: those of `invert`, and `labels` and `guidance` as for `generate`; give `generate` the
        same ones, or others, to edit.
    Raises ValueError for images of another shape, and as `invert` and `generate` do.
    """
    images = model.normalize(image_batch(images, model.image_size))
    return model.reverse_diffusion(images, steps, invert, corrections=corrections, **options)


def gaussian_check(noises: Tensor) -> dict[str, np.ndarray]:
    """Return statistics of noises (B, S, S, 3) that tell drawn noise from others, float64 (B,).

    "mean" and "variance" of all values of a noise, and "correlation": that of neighbouring pixels
    of one colour, across and down. Drawn noise has 0, 1 and 0 but for chance, whose standard
    deviations are `chance(noises.shape)`.
    """
    noises = ops.convert_to_numpy(noises).astype("float64")
    means = noises.mean(axis=(1, 2, 3))
    centred = noises - means[:, None, None, None]
    variances = (centred**2).mean(axis=(1, 2, 3))
    across = (centred[:, :, 1:] * centred[:, :, :-1]).mean(axis=(1, 2, 3))
    down = (centred[:, 1:] * centred[:, :-1]).mean(axis=(1, 2, 3))
    correlations = (across + down) / 2 / np.maximum(variances, np.finfo("float64").tiny)
    return {"mean": means, "variance": variances, "correlation": correlations}


def chance(shape: tuple[int, ...]) -> dict[str, float]:
    """Return the standard deviations of `gaussian_check` over drawn noises (B, S, S, 3)."""
    count = float(np.prod(shape[1:]))
    return {
        "mean": count**-0.5,
        "variance": (2 / count) ** 0.5,
        "correlation": (2 * count * (1 - 1 / shape[1])) ** -0.5,
    }


def _first_step(flow, there, iterations):
    """Solve x = cos(there) x_0 + sin(there) eps(x) for the lowest noisy image, from eps = 0."""
    signal = float(np.cos(there)) * flow.images
    guess = signal
    for _ in range(iterations):
        guess = signal + float(np.sin(there)) * flow.predict(there, guess)[0]
    return guess


def _rotated(images, slope, delta, implicit=False):
    """Take a step of width `delta` upwards, with the slope at its start or (implicit) its end."""
    turn, keep = float(np.sin(delta)), float(np.cos(delta))
    return (images + turn * slope) / keep if implicit else keep * images + turn * slope


def _dot(a, b):
    return ops.sum(a * b, axis=(1, 2, 3), keepdims=True)


def _coupled(schedule, steps, mixing):
    if not 0.5 < mixing <= 1:
        raise ValueError(f"mixing must be above 0.5 and at most 1, got {mixing}")
    return ddim_angles(schedule, whole_number("steps", steps, least=1)), float(mixing)


def _noise_step(here, there):
    """Return (a, b) of DDIM's step down: x_here = a x_there + b eps."""
    kept = np.cos(here) / np.cos(there)
    return float(kept), float(np.sin(here) - kept * np.sin(there))
