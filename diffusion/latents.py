"""Initial noise, and ways from one noise to another.

With DDIM the initial noise decides the picture, so it is the picture's address (its latent). These
functions make addresses and walk between them.
"""

import warnings

import keras
import numpy as np
from keras import ops


def initial_noise(num_images, image_size, seed=None):
    """Draw standard normal noise of shape `(num_images, image_size, image_size, 3)`, float32.

    seed: an int gives the same noise every time; None gives other noise each time.
    Raises ValueError for fewer than one image.
    """
    if num_images < 1:
        raise ValueError(f"num_images must be 1 or more, got {num_images}")
    return keras.random.normal((num_images, image_size, image_size, 3), seed=seed)


def spherical_interpolation(a, b, t):
    """Walk from `b` (t = 0) to `a` (t = 1): a sin(pi t / 2) + b cos(pi t / 2).

    a, b: noises of one shape, `(S, S, 3)`, or batches of them, walked pair by pair.
    t: a number in [0, 1], or an array of n of them: then n results stand in front, `(n, ...)`.

    For independent noises the variance stays 1 all the way, since sin^2 + cos^2 = 1. It is a
    rotation only if `a` and `b` are orthogonal, which independent noises of many pixels nearly
    are. Where they are not (two mixes of one noise, or a noise and its copy: 41% too much in the
    middle), the variance is not kept; this warns above a cosine of 0.2. `slerp` is right there.
    The chapter's section "Interpolating between images", figure 8-16.
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


def slerp(a, b, t):
    """Walk from `b` (t = 0) to `a` (t = 1) on the great circle through both, at even speed.

    Arguments and result as for `spherical_interpolation`, with which it agrees where `a` and `b`
    are orthogonal. The angle between them is measured, not assumed, so that two noises of one
    length keep it all the way. Shoemake 1985, "Animating rotation with quaternion curves".
    Raises ValueError if `a` and `b` are opposite: then there is no one shortest way.
    """
    a, b = _as_arrays(a, b)
    angles = np.arccos(np.clip(_cosines(a, b), -1.0, 1.0))
    weight = _in_front_of(t, a.ndim)
    if (np.pi - angles < 1e-3).any():
        raise ValueError(
            "slerp needs two noises that are not opposite, got a = -b (times a number)"
        )
    angles = np.maximum(angles, 1e-3)  # at zero the shares would be 0/0; here they are w and 1 - w
    a_share = np.sin(weight * angles) / np.sin(angles)
    b_share = np.sin((1 - weight) * angles) / np.sin(angles)
    return ops.convert_to_tensor((a_share * a + b_share * b).astype("float32"))


def walks(noises, columns):
    """Walk from each of `noises` (N, S, S, 3) to the next, and from the last to the first.

    Returns `columns` noises for each walk, `(N * columns, S, S, 3)`, ends included, by `slerp`.
    Raises ValueError for fewer than two noises or columns: there is nowhere to walk.
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
    """The cosine between each noise and its partner, shaped to multiply them: (..., 1, 1, 1)."""
    a, b = a.astype("float64"), b.astype("float64")

    def dot(x, y):
        return (x * y).sum(axis=(-3, -2, -1), keepdims=True)

    return dot(a, b) / np.sqrt(dot(a, a) * dot(b, b))


def _in_front_of(t, ndim):
    t = np.asarray(t, "float32")
    return t.reshape(t.shape + (1,) * ndim) if t.ndim else t
