"""Editing: redraw a photograph more or less freely, under another name, or walk to another one.

All of it is DDIM between images and noises: `redraw` goes up to a noise level by adding noise and
draws back down; `rename` goes up by inversion under one name and down under another; `walk` draws
what lies between two noises.
"""

from typing import Any

import numpy as np
from keras import ops

from diffusion.guidance import Interval
from diffusion.inversion import find_noise
from diffusion.labels import Labels
from diffusion.latents import initial_noise, slerp
from diffusion.samplers import ddim
from diffusion.support.contracts import Denoise, Sampler, Schedule, Seed, Tensor
from diffusion.support.pixels import image_batch
from diffusion.support.validation import whole_number


def sdedit(
    denoise: Denoise,
    schedule: Schedule,
    noise: Tensor,
    steps: int = 20,
    images: Tensor = None,
    strength: float = 0.5,
    solver: Sampler = ddim,
    **options: Any,
) -> Tensor:
    """Add noise to images up to diffusion time `strength`, and sample from there.

    A sampler with two options that it needs: images, normalised, of the shape of `noise`
    (B, S, S, 3), and strength, in [0, 1]. At 0 it returns the images. At 1 it starts from the
    noise alone, as any sampler does, and forgets them. In between, it takes that share of the
    steps, rounded, but at least one. A schedule that begins with some noise, as the offset
    cosine does, adds no less than that at any strength above 0.
    solver: the sampler that draws, with its own options.
    Meng et al. 2021 (arXiv:2108.01073), section 3; `strength` is the paper's t_0.
    Raises ValueError for steps below 1 or a strength outside [0, 1].
    """
    steps = whole_number("steps", steps, least=1)
    if not 0 <= strength <= 1:
        raise ValueError(f"strength must be from 0 (the image) to 1 (a new one), got {strength}")
    if strength == 0:
        return ops.convert_to_tensor(images, "float32")
    start = ops.convert_to_tensor(noise, "float32")
    if strength < 1:
        noise_rate, signal_rate = schedule(np.float32(strength))
        start = signal_rate * images + noise_rate * start

    def lower_part(diffusion_times):
        return schedule(strength * diffusion_times)

    return solver(denoise, lower_part, start, max(1, round(strength * steps)), **options)


def redraw(
    model: Any, images: Tensor, strength: float, steps: int = 20, seed: Seed = None, **options: Any
) -> np.ndarray:
    """Redraw images by SDEdit: float32 (B, S, S, 3) in [0, 1], as a NumPy array.

    images: (B, S, S, 3), uint8 or float in [0, 1], of the model's size.
    strength: from 0, which returns the images to the bit, to 1, which draws new ones from `seed`.
    options: as for `generate`, such as `labels` and `guidance`, and those of `sdedit`.
    Raises ValueError for images of another shape, and as `sdedit` and `generate` do.
    """
    images = image_batch(images, model.image_size)
    drawn = model.generate(
        initial_noise=initial_noise(len(images), model.image_size, seed),
        steps=steps,
        sampler=sdedit,
        images=model.normalize(images),
        strength=strength,
        **options,
    )
    return images if strength == 0 else drawn


def rename(
    model: Any,
    images: Tensor,
    source: Labels,
    target: Labels,
    steps: int = 20,
    guidance: float = 1.0,
    guidance_interval: Interval | None = None,
    **options: Any,
) -> np.ndarray:
    """Draw images under another name: float32 (B, S, S, 3) in [0, 1], as a NumPy array.

    Their noise is found under the name `source` at scale 1; from it, images of `target` are drawn
    with `guidance`, as for `generate`.
    images: (B, S, S, 3), uint8 or float in [0, 1], of the model's size.
    source, target: labels as for `generate`; a `source` of None is no name.
    options: those of `inversion.invert`.
    Raises ValueError as `inversion.find_noise` and `generate` do.
    """
    noise = find_noise(model, images, steps, labels=source, **options)
    return model.generate(
        initial_noise=noise,
        steps=steps,
        labels=target,
        guidance=guidance,
        guidance_interval=guidance_interval,
    )


def walk(
    model: Any, start: Tensor, end: Tensor, columns: int = 9, steps: int = 20, **options: Any
) -> np.ndarray:
    """Draw the images on the way from one noise to another: float32 (columns, S, S, 3) in [0, 1].

    start, end: noises (S, S, 3), found by `inversion.find_noise` or drawn; see `latents.slerp`.
    columns: number of images, 2 or more, both ends included.
    options: as for `generate`. Raises ValueError for fewer columns or noises of another shape.
    """
    columns = whole_number("columns", columns, least=2)
    noises = slerp(end, start, np.linspace(0, 1, columns))
    return model.generate(initial_noise=noises, steps=steps, **options)
