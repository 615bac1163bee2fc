"""Initial noise, and paths from one noise to another.

With DDIM the initial noise determines the image, so it serves as the image's latent. These
functions draw latents and walk between them.
"""

import warnings

import keras
import numpy as np
from keras import ops

from diffusion.support.contracts import Seed, Tensor
from diffusion.support.validation import checked_seed


def initial_noise(num_images: int, image_size: int, seed: Seed = None) -> Tensor:
    """Draw standard normal noise of shape `(num_images, image_size, image_size, 3)`, float32.

    seed: an int from 0 to 2**32 - 1 gives the same noise every time, None new noise each time.
    Raises ValueError for fewer than one image or another seed.
    """
    if num_images < 1:
        raise ValueError(f"num_images must be 1 or more, got {num_images}")
    shape = (num_images, image_size, image_size, 3)
    return keras.random.normal(shape, seed=checked_seed(seed))


def fresh_generator(seed: Seed) -> keras.random.SeedGenerator:
    """Return a generator of noises other than the initial noise drawn from the same seed."""
    if isinstance(seed, keras.random.SeedGenerator):
        return seed
    generator = keras.random.SeedGenerator(checked_seed(seed))
    generator.next()  # the seed's first draw may have been the initial noise
    return generator


def spherical_interpolation(a: Tensor, b: Tensor, t: float | Tensor) -> Tensor:
    """Walk from `b` (t = 0) to `a` (t = 1): a sin(pi t / 2) + b cos(pi t / 2).

    a, b: noises of one shape, `(S, S, 3)`, or batches of them, interpolated pair by pair.
    t: a number in [0, 1], or an array of n of them, for a result of shape `(n, ...)`.

    For independent noises the variance stays 1 throughout, because sin^2 + cos^2 = 1. This is a
    rotation only if `a` and `b` are orthogonal, as independent noises of many pixels nearly are.
    Where they are not, the variance changes: halfway between a noise and its copy it is doubled
    (41% more in length). The function warns above a cosine of 0.2; use `slerp` there.
    The chapter's section on interpolating between images, figure 8-16.
    """
    a, b = _as_arrays(a, b)
    cosines = _cosines(a, b)
    if np.abs(cosines).max() > 0.2:
        worst = cosines.flat[np.abs(cosines).argmax()]
        warnings.warn(
            f"the noises are not orthogonal (cosine {worst:.2f}), so a sin + b cos does not keep "
            "their variance: use slerp",
            stacklevel=2,
        )
    weight = _in_front_of(t, a.ndim)
    return ops.convert_to_tensor(a * np.sin(weight * np.pi / 2) + b * np.cos(weight * np.pi / 2))


def slerp(a: Tensor, b: Tensor, t: float | Tensor) -> Tensor:
    """Walk from `b` (t = 0) to `a` (t = 1) along their great circle, at constant speed.

    Arguments and result are as for `spherical_interpolation`, which gives the same where `a` and
    `b` are orthogonal. Here the angle between them is measured, so two noises of the same length
    keep it throughout. Shoemake 1985, "Animating rotation with quaternion curves".
    Raises ValueError if `a` and `b` are opposite, since no path is then the shortest, or if one of
    them is all zeros, which has no direction.
    """
    a, b = _as_arrays(a, b)
    for name, noise in (("a", a), ("b", b)):
        if not noise.any(axis=(-3, -2, -1)).all():
            raise ValueError(f"slerp needs two noises with a direction, got {name} = 0 everywhere")
    angles = np.arccos(np.clip(_cosines(a, b), -1.0, 1.0))
    if (np.pi - angles < 1e-3).any():
        raise ValueError(
            "slerp needs two noises that are not opposite, got a = -b (times a number)"
        )
    weight = _in_front_of(t, a.ndim)
    angles = np.maximum(angles, 1e-3)  # at angle 0 the shares, w and 1 - w, would be 0 / 0
    # sin(w angle) / sin(angle) a + sin((1 - w) angle) / sin(angle) b
    a_share = np.sin(weight * angles) / np.sin(angles)
    b_share = np.sin((1 - weight) * angles) / np.sin(angles)
    return ops.convert_to_tensor((a_share * a + b_share * b).astype("float32"))


def walks(noises: Tensor, columns: int) -> Tensor:
    """Walk by `slerp` from each of `noises` (N, S, S, 3) to the next, and from last to first.

    Returns `columns` noises for each walk, ends included: `(N * columns, S, S, 3)`.
    Raises ValueError for fewer than two noises or columns.
    """
    if len(noises) < 2 or columns < 2:
        raise ValueError(
            f"a walk needs 2 noises and 2 columns or more, got {len(noises)} and {columns}"
        )
    times = np.linspace(1, 0, columns)  # slerp runs from b to a
    rows = [slerp(a, b, times) for a, b in zip(noises, np.roll(noises, -1, axis=0), strict=True)]
    return ops.concatenate(rows)


def _as_arrays(a, b):
    a, b = ops.convert_to_numpy(a), ops.convert_to_numpy(b)
    if a.shape != b.shape:
        raise ValueError(f"the two noises must have one shape, got {a.shape} and {b.shape}")
    return a, b


def _cosines(a, b):
    """Return the cosine between the noises of each pair, as (..., 1, 1, 1); 0 for a zero noise."""
    a, b = a.astype("float64"), b.astype("float64")

    def dot(x, y):
        return (x * y).sum(axis=(-3, -2, -1), keepdims=True)

    return dot(a, b) / np.maximum(np.sqrt(dot(a, a) * dot(b, b)), np.finfo("float64").tiny)


def _in_front_of(t, ndim):
    """Return `t` with `ndim` axes of length 1 behind its own, to broadcast against the noises."""
    t = np.asarray(t, "float32")
    return t.reshape(t.shape + (1,) * ndim) if t.ndim else t
