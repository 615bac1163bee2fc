"""Inpainting: draw part of an image anew, so that it fits the part that is kept.

The model is not trained for it. At each noise level the kept part is known: it is the image with
that much noise. The sampler draws the rest, and the known part replaces what it has drawn there.
By itself this gives seams, because a step sees the known part but cannot change it. Resampling
goes back up a few levels by adding noise, and down again, so that the drawn part can adapt.
"""

import itertools
from typing import Any

import keras
import numpy as np
from keras import ops

from diffusion.flow import ProbabilityFlow, ddim_angles
from diffusion.latents import fresh_generator, initial_noise
from diffusion.support.contracts import Denoise, OnStep, Schedule, Seed, Tensor
from diffusion.support.pixels import image_batch
from diffusion.support.validation import whole_number


def resampling_path(steps: int, resamplings: int = 1, jump: int = 1) -> list[int]:
    """Return the noise levels that RePaint visits, from `steps` (noise) down to 0 (image).

    Neighbours in the list differ by 1. At every `jump`-th level the path goes `jump` levels back up
    and down again, `resamplings - 1` times.
    Lugmayr et al. 2022 (arXiv:2201.09865), figure 9. Raises ValueError for numbers below 1.
    """
    steps = whole_number("steps", steps, least=1)
    resamplings = whole_number("resamplings", resamplings, least=1)
    jump = whole_number("jump", jump, least=1)
    left = dict.fromkeys(range(0, steps - jump + 1, jump), resamplings - 1)
    path = [steps]
    while path[-1] > 0 or left.get(0):
        if left.get(path[-1]):
            left[path[-1]] -= 1
            path += range(path[-1] + 1, path[-1] + jump + 1)
        path.append(path[-1] - 1)
    return path


def repaint(
    denoise: Denoise,
    schedule: Schedule,
    noise: Tensor,
    steps: int = 20,
    images: Tensor = None,
    masks: Tensor = None,
    resamplings: int = 5,
    jump: int = 1,
    seed: Seed = None,
    on_step: OnStep | None = None,
) -> Tensor:
    """Sample images that agree with `images` wherever `masks` is False.

    A sampler with two options that it needs: images, normalised, of the shape of `noise`
    (B, S, S, 3), and masks, bool, (B, S, S, 1), True where to draw. Each step is one of DDPM; see
    `samplers.ddim` with eta 1.
    resamplings: how often each level is drawn; 1 never goes back. The network is evaluated
        about `steps * resamplings` times.
    jump: how many levels the path goes back each time; see `resampling_path`.
    Other arguments and the result are as for `samplers.ddim`. Known pixels come out unchanged.
    Lugmayr et al. 2022 (arXiv:2201.09865), algorithm 1.
    Raises ValueError for numbers below 1.
    """
    path, seed = resampling_path(steps, resamplings, jump), fresh_generator(seed)
    angles = ddim_angles(schedule, steps)
    images, masks = ops.convert_to_tensor(images, "float32"), ops.convert_to_tensor(masks, "bool")
    flow = ProbabilityFlow(denoise, noise, on_step)

    def with_known_part(drawn, angle):
        known = float(np.cos(angle)) * images + float(np.sin(angle)) * _normal(drawn, seed)
        return ops.where(masks, drawn, known)

    flow.images = with_known_part(flow.images, angles[steps])
    for here, there in itertools.pairwise(path):
        if there > here:
            flow.images = _step_up(flow.images, angles[here], angles[there], seed)
        else:
            predicted = flow.predict(angles[here])
            drawn = _step_down(predicted, angles[here], angles[there], seed)
            flow.images = with_known_part(drawn, angles[there])
    return flow.images


def inpaint(
    model: Any,
    images: Tensor,
    masks: Tensor,
    steps: int = 20,
    seed: Seed = None,
    resamplings: int = 5,
    jump: int = 1,
    **options: Any,
) -> np.ndarray:
    """Draw the masked part of images anew: float32 (B, S, S, 3) in [0, 1], as a NumPy array.

    images: (B, S, S, 3), uint8 or float in [0, 1], of the model's size. Outside of the masks they
        come back to the bit.
    masks: bool, one (S, S) for all images or one for each, (B, S, S); True is drawn anew. With a
        mask of False alone nothing is drawn; one of True alone leaves an ordinary drawn image.
    resamplings, jump: see `repaint`. options: as for `generate`, such as `labels` and `guidance`.
    Raises ValueError for images or masks of another shape, and masks that are not bool.
    """
    images = image_batch(images, model.image_size)
    masks = _mask_batch(masks, len(images), model.image_size)
    if not masks.any():
        return images
    drawn = model.generate(
        initial_noise=initial_noise(len(images), model.image_size, seed),
        steps=steps,
        seed=seed,
        sampler=repaint,
        images=model.normalize(images),
        masks=masks,
        resamplings=resamplings,
        jump=jump,
        **options,
    )
    return np.where(masks, drawn, images)


def _mask_batch(masks, count, size):
    """Return masks as (count, size, size, 1), or raise ValueError."""
    masks = np.asarray(masks)
    if masks.dtype != bool:
        raise ValueError(f"masks must be bool, True where to draw, got {masks.dtype}")
    if masks.shape not in ((size, size), (count, size, size), (count, size, size, 1)):
        wanted = f"({size}, {size}) or ({count}, {size}, {size})"
        raise ValueError(f"masks must have the shape {wanted}, got {masks.shape}")
    return np.broadcast_to(masks.reshape(-1, size, size, 1), (count, size, size, 1))


def _step_down(predicted, here, there, seed):
    """Take one step of DDPM from angle `here` down to `there`: `samplers.ddim` with eta 1."""
    pred_noises, pred_images = predicted
    lost_signal = np.sqrt(max(0.0, 1 - (np.cos(here) / np.cos(there)) ** 2))
    fresh = np.sin(there) / np.sin(here) * lost_signal if np.sin(here) > 0 else 0.0
    kept = np.sqrt(max(0.0, np.sin(there) ** 2 - fresh**2))
    drawn = float(np.cos(there)) * pred_images + float(kept) * pred_noises
    return drawn + float(fresh) * _normal(drawn, seed) if fresh else drawn


def _step_up(images, here, there, seed):
    """Add noise to go from angle `here` up to `there`: draw from q(x_there | x_here)."""
    kept = np.cos(there) / np.cos(here)
    return float(kept) * images + float(np.sqrt(max(0.0, 1 - kept**2))) * _normal(images, seed)


def _normal(like, seed):
    return keras.random.normal(ops.shape(like), seed=seed)
