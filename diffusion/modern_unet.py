"""A U-Net for quality per minute: it is told the noise level, and a name, in every block.

It keeps the contract of `unet.build_unet` and changes what later work found worth changing: a stem
that folds small patches of pixels into channels, more channels where the resolution is low,
self-attention at the bottom, and an embedding of noise level and name that scales and shifts the
features in every block. Nichol and Dhariwal 2021 (arXiv:2102.09672), section 3; Dhariwal and Nichol
2021 (arXiv:2105.05233), section 3. `docs/recipe.md` has what each of its parts was measured to
bring, at equal processor time.
"""

from collections.abc import Callable
from typing import Any

import keras
from keras import layers, ops

from diffusion.support.contracts import Tensor
from diffusion.support.normalization import FusedBatchNormalization
from diffusion.unet import SinusoidalEmbedding, network_inputs

HEAD_CHANNELS = 64  # channels of an attention head


@keras.saving.register_keras_serializable(package="diffusion")
class Modulation(layers.Layer):
    """Scale and shift features by what an embedding says: `features * (1 + scale) + shift`.

    Input `[features (B, S, S, C), embedding (B, D)]`, output `(B, S, S, C)`. It starts as the
    identity. Perez et al. 2017 (arXiv:1709.07871), "FiLM"; Dhariwal and Nichol 2021
    (arXiv:2105.05233), section 3.
    """

    def build(self, input_shape):
        features, embedding = input_shape
        self.dense = layers.Dense(
            2 * features[-1], kernel_initializer="zeros", dtype=self.dtype_policy, name="dense"
        )
        self.dense.build(embedding)
        self.built = True

    def call(self, inputs: list[Tensor]) -> Tensor:
        features, embedding = inputs
        scale, shift = ops.split(self.dense(embedding)[:, None, None], 2, axis=-1)
        return features * (1 + scale) + shift

    def compute_output_shape(self, input_shape):
        return input_shape[0]


def ModulatedBlock(
    width: int, embedding: Tensor, dtype: str | None = None
) -> Callable[[Tensor], Tensor]:
    """Return a function that adds two 3x3 convolutions of `x`, modulated by `embedding`, to it.

    Maps `(B, S, S, any)` to `(B, S, S, width)`. The second convolution starts at zero, so the
    block starts as the identity (or as the 1x1 convolution that adapts the width).
    """

    def apply(x):
        residual = x if x.shape[-1] == width else layers.Conv2D(width, 1, dtype=dtype)(x)
        x = FusedBatchNormalization(dtype=dtype)(x)
        x = layers.Activation("swish", dtype=dtype)(x)
        x = layers.Conv2D(width, 3, padding="same", dtype=dtype)(x)
        x = Modulation(dtype=dtype)([x, embedding])
        x = layers.Activation("swish", dtype=dtype)(x)
        x = layers.Conv2D(width, 3, padding="same", kernel_initializer="zeros", dtype=dtype)(x)
        return layers.Add(dtype=dtype)([x, residual])

    return apply


def AttentionBlock(dtype: str | None = None) -> Callable[[Tensor], Tensor]:
    """Return a function that lets all positions of `x` (B, S, S, C) attend to each other.

    One head for each 64 channels; the result is added to `x`. No position is encoded, so the
    weights do not depend on the resolution. Vaswani et al. 2017 (arXiv:1706.03762), section 3.2.
    """

    def apply(x):
        height, width, channels = x.shape[1:]
        heads = max(1, channels // HEAD_CHANNELS)
        tokens = layers.Reshape((height * width, channels), dtype=dtype)(
            FusedBatchNormalization(dtype=dtype)(x)
        )
        tokens = layers.MultiHeadAttention(heads, channels // heads, dtype=dtype)(tokens, tokens)
        tokens = layers.Reshape((height, width, channels), dtype=dtype)(tokens)
        return layers.Add(dtype=dtype)([x, tokens])

    return apply


def build_modern_unet(
    image_size: int = 64,
    widths: tuple[int, ...] = (64, 128, 256),
    block_depth: int = 2,
    embedding_dims: int = 64,
    dtype: str = "float32",
    self_conditioning: bool = False,
    num_classes: int = 0,
    *,
    patch_size: int = 2,
    attention: bool = True,
    bottom_depth: int | None = None,
) -> keras.Model:
    """Build the U-Net; arguments as for `unet.build_unet`, and

    patch_size: side of the patches of pixels that the first convolution folds into channels.
    attention: attend between the blocks at the lowest resolution.
    bottom_depth: residual blocks at the lowest resolution; default `block_depth`.
    embedding_dims: length of the sinusoidal embedding; an MLP of `widths[-1]` units follows.

    Returns a functional `keras.Model` with inputs named as the contract says; the untrained network
    predicts zeros.
    Raises ValueError if the resolution cannot be divided by the patches and then halved.
    """
    widths = tuple(widths)
    multiple = patch_size * 2 ** (len(widths) - 1)
    if not widths or image_size % multiple:
        raise ValueError(
            f"image_size must be a multiple of {multiple} for widths {widths} and patches of "
            f"{patch_size}, got {image_size}"
        )
    inputs, x, embedding = _stem(
        network_inputs(image_size, self_conditioning, num_classes),
        (widths[0], widths[-1], embedding_dims, patch_size, num_classes),
        dtype,
    )
    skips = []
    for width in widths[:-1]:
        for _ in range(block_depth):
            x = ModulatedBlock(width, embedding, dtype)(x)
            skips.append(x)
        x = layers.AveragePooling2D(pool_size=2, dtype=dtype)(x)
    for number in range(bottom_depth or block_depth):
        if number and attention:
            x = AttentionBlock(dtype)(x)
        x = ModulatedBlock(widths[-1], embedding, dtype)(x)
    for width in reversed(widths[:-1]):
        x = layers.UpSampling2D(size=2, interpolation="nearest", dtype=dtype)(x)
        for _ in range(block_depth):
            x = layers.Concatenate(dtype=dtype)([x, skips.pop()])
            x = ModulatedBlock(width, embedding, dtype)(x)
    # No normalisation and no activation before the output: what is linear in the noisy image, which
    # is most of the answer where there is much noise or little, gets through from the first layer.
    outputs = layers.Conv2DTranspose(
        3, patch_size, patch_size, kernel_initializer="zeros", dtype="float32", name="outputs"
    )(x)
    return keras.Model(list(inputs.values()), outputs, name="modern_unet")


def _stem(inputs: dict[str, Any], sizes: tuple, dtype: str):
    """Return inputs, the patches as features, and the embedding of noise level and name."""
    width, units, dims, patch_size, num_classes = sizes
    x = inputs["noisy_images"]
    if "earlier_images" in inputs:
        x = layers.Concatenate(dtype=dtype)([x, inputs["earlier_images"]])
    x = layers.Conv2D(width, patch_size, patch_size, dtype=dtype, name="patches")(x)
    variances = layers.Flatten(dtype="float32")(inputs["noise_variances"])
    embedding = SinusoidalEmbedding(dims, name="noise_embedding")(variances)
    embedding = layers.Dense(units, activation="swish", dtype=dtype)(embedding)
    if "labels" in inputs:
        names = layers.Embedding(num_classes + 1, units, dtype=dtype, name="label_embedding")
        embedding = layers.Add(dtype=dtype)([embedding, names(inputs["labels"])])
    embedding = layers.Dense(units, activation="swish", dtype=dtype)(embedding)
    return inputs, x, embedding
