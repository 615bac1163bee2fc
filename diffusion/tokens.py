"""Tokens: an image as a sequence of its patches, each of which knows where it is.

The transformer (`transformer`) works on them. Peebles and Xie 2022 (arXiv:2212.09748), section 3.2.
"""

import math
from typing import Any

import keras
import numpy as np
from keras import layers, ops

from diffusion.support.contracts import Tensor


def patchify(images: Tensor, patch_size: int) -> Tensor:
    """Cut images (B, H, W, C) into tokens (B, T, p p C), where p is `patch_size`, T = H W / p^2.

    Tokens are ordered by row, then column; a token's numbers by row, column and channel.
    Peebles and Xie 2022 (arXiv:2212.09748), section 3.2, "Patchify".
    """
    _, height, width, channels = images.shape
    rows, columns = height // patch_size, width // patch_size
    x = ops.reshape(images, (-1, rows, patch_size, columns, patch_size, channels))
    return ops.reshape(
        ops.transpose(x, (0, 1, 3, 2, 4, 5)), (-1, rows * columns, patch_size**2 * channels)
    )


def unpatchify(tokens: Tensor, patch_size: int) -> Tensor:
    """Return square images (B, S, S, C) from tokens (B, T, p p C): the inverse of `patchify`."""
    side, channels = math.isqrt(tokens.shape[1]), tokens.shape[2] // patch_size**2
    x = ops.reshape(tokens, (-1, side, side, patch_size, patch_size, channels))
    size = side * patch_size
    return ops.reshape(ops.transpose(x, (0, 1, 3, 2, 4, 5)), (-1, size, size, channels))


def positions(side: int, dims: int) -> np.ndarray:
    """Return the two-dimensional sine-cosine embedding of a square of tokens, (side^2, dims).

    The first half of the numbers encodes the column, the second the row: sines, then cosines, at
    dims / 4 frequencies from 1 down to nearly 1 / 10,000 radians a token. dims: a multiple of 4.
    Vaswani et al. 2017 (arXiv:1706.03762), section 3.5, once along each axis.
    """
    frequencies = 10_000.0 ** (-np.arange(dims // 4) / (dims // 4))
    angles = np.arange(side)[:, None] * frequencies
    axis = np.concatenate([np.sin(angles), np.cos(angles)], axis=1)
    return np.concatenate([np.tile(axis, (side, 1)), np.repeat(axis, side, axis=0)], axis=1)


@keras.saving.register_keras_serializable(package="diffusion")
class Patchify(layers.Layer):
    """`patchify` as a layer: (B, S, S, C) -> (B, T, p p C)."""

    def __init__(self, patch_size: int, **kwargs: Any):
        super().__init__(**kwargs)
        self.patch_size = patch_size

    def call(self, images: Tensor) -> Tensor:
        return patchify(images, self.patch_size)

    def get_config(self):
        return {**super().get_config(), "patch_size": self.patch_size}


@keras.saving.register_keras_serializable(package="diffusion")
class Unpatchify(Patchify):
    """`unpatchify` as a layer: (B, T, p p C) -> (B, S, S, C)."""

    def call(self, images: Tensor) -> Tensor:
        return unpatchify(images, self.patch_size)


@keras.saving.register_keras_serializable(package="diffusion")
class AddPositions(layers.Layer):
    """Add `positions` to the tokens (B, T, D) of a square image. It has no weights."""

    def call(self, tokens: Tensor) -> Tensor:
        table = positions(math.isqrt(tokens.shape[1]), tokens.shape[2])
        return tokens + ops.convert_to_tensor(table, self.compute_dtype)
