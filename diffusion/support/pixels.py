"""Pixels: their range, and the statistics of many images."""

import keras
import numpy as np
from keras import ops


def scale_pixels(images):
    """Return images as a float32 tensor in [0, 1]: uint8 is scaled, float must be in range already.

    Raises ValueError for other types of integer, whose range is unknown.
    """
    dtype = keras.backend.standardize_dtype(images.dtype)
    if dtype != "uint8" and "float" not in dtype:
        raise ValueError(f"images must be uint8, or float in [0, 1], got {dtype}")
    images = ops.cast(images, "float32")
    return images / 255.0 if dtype == "uint8" else images


def image_batch(images, image_size: int) -> np.ndarray:
    """Return images (B, S, S, 3), uint8 or in [0, 1], as a float32 array in [0, 1].

    Raises ValueError for other shapes than S = `image_size`, types, or values outside [0, 1].
    """
    images = np.asarray(images)
    if images.ndim != 4 or images.shape[1:] != (image_size, image_size, 3) or not len(images):
        wanted = f"(B, {image_size}, {image_size}, 3)"
        raise ValueError(f"images must have the shape {wanted} of the model, got {images.shape}")
    if images.dtype == np.uint8:
        return images.astype("float32") / np.float32(255)
    scale_pixels(images[:0])  # refuses other whole numbers
    if not (images.min() >= 0 and images.max() <= 1):
        found = f"{images.min():.3g} to {images.max():.3g}"
        raise ValueError(f"images must be uint8, or float in [0, 1], got values from {found}")
    return images.astype("float32")


def colour_statistics(images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return each colour's mean and variance, float64 (3,), in `images` (N, S, S, 3).

    images: uint8 or in [0, 1], read about a million pixels at a time, so that they need not fit
    into memory.
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
