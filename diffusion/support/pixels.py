"""Pixels: what a number in a picture means, and the statistics of many pictures."""

import keras
import numpy as np
from keras import ops


def scale_pixels(images):
    """Turn uint8 pictures into float32 in [0, 1]; float ones are taken to be so already.

    Raises ValueError for whole numbers of another kind: nobody can tell what they mean.
    """
    dtype = keras.backend.standardize_dtype(images.dtype)
    if dtype != "uint8" and "float" not in dtype:
        raise ValueError(f"pictures must be uint8, or float in [0, 1], got {dtype}")
    images = ops.cast(images, "float32")
    return images / 255.0 if dtype == "uint8" else images


def colour_statistics(images):
    """Return each colour's mean and variance, float64 (3,), in `images` (N, S, S, 3).

    images: uint8 or in [0, 1]. It goes through them about a million pixels at a time: they need
    not fit into memory.
    """
    count, total, squares = 0, np.zeros(3), np.zeros(3)
    rows = max(1, 1_000_000 // (images.shape[1] * images.shape[2]))
    for start in range(0, len(images), rows):
        chunk = ops.convert_to_numpy(scale_pixels(images[start : start + rows]))
        chunk = chunk.reshape(-1, 3)
        count += len(chunk)
        total += np.einsum("nc->c", chunk, dtype="float64")
        squares += np.einsum("nc,nc->c", chunk, chunk, dtype="float64")
    mean = total / count
    return mean, np.maximum(squares / count - mean**2, 0)
