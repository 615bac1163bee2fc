"""A U-Net for quality per minute, conditioned on noise level and label in every block.

It keeps the contract of `unet.build_unet` and changes what later work found worth changing: a stem
that folds small patches of pixels into channels, more channels where the resolution is low,
self-attention at the bottom, and an embedding of noise level and name that scales and shifts the
features in every block. Nichol and Dhariwal 2021 (arXiv:2102.09672), section 3; Dhariwal and Nichol
2021 (arXiv:2105.05233), section 3. `docs/recipe.md` has what was measured at equal processor time.
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
    width: int, embedding: Tensor, name: str, dtype: str | None = None
) -> Callable[[Tensor], Tensor]:
    """Return a function that adds two 3x3 convolutions of `x`, modulated by `embedding`, to it.

    Maps `(B, S, S, any)` to `(B, S, S, width)`. The second convolution starts at zero, so the
    block starts as the identity (or as the 1x1 convolution that adapts the width).
    name: the layers' names begin with it. They must not depend on what else was built before:
    where many layers take one tensor, TensorFlow adds their gradients in the order of their names,
    and a resumed run would differ from an uninterrupted one in the last bit.
    """

    def apply(x):
        residual = x
        if x.shape[-1] != width:
            residual = layers.Conv2D(width, 1, dtype=dtype, name=f"{name}_skip")(x)
        x = FusedBatchNormalization(dtype=dtype, name=f"{name}_norm")(x)
        x = layers.Activation("swish", dtype=dtype, name=f"{name}_swish_1")(x)
        x = layers.Conv2D(width, 3, padding="same", dtype=dtype, name=f"{name}_conv_1")(x)
        x = Modulation(dtype=dtype, name=f"{name}_modulation")([x, embedding])
        x = layers.Activation("swish", dtype=dtype, name=f"{name}_swish_2")(x)
        options = {"padding": "same", "kernel_initializer": "zeros", "name": f"{name}_conv_2"}
        x = layers.Conv2D(width, 3, dtype=dtype, **options)(x)
        return layers.Add(dtype=dtype, name=f"{name}_add")([x, residual])

    return apply


def AttentionBlock(name: str, dtype: str | None = None) -> Callable[[Tensor], Tensor]:
    """Return a function that lets all positions of `x` (B, S, S, C) attend to each other.

    One head for each 64 channels; the result is added to `x`. No position is encoded, so the
    weights do not depend on the resolution. name: the layers' names begin with it.
    Vaswani et al. 2017 (arXiv:1706.03762), section 3.2.
    """

    def apply(x):
        height, width, channels = x.shape[1:]
        heads = max(1, channels // HEAD_CHANNELS)
        tokens = FusedBatchNormalization(dtype=dtype, name=f"{name}_norm")(x)
        tokens = layers.Reshape((-1, channels), dtype=dtype, name=f"{name}_tokens")(tokens)
        attention = layers.MultiHeadAttention(heads, channels // heads, dtype=dtype, name=name)
        tokens = attention(tokens, tokens)
        shape = (height, width, channels)
        tokens = layers.Reshape(shape, dtype=dtype, name=f"{name}_image")(tokens)
        return layers.Add(dtype=dtype, name=f"{name}_add")([x, tokens])

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
    attention_levels: int = 1,
    bottom_depth: int | None = None,
) -> keras.Model:
    """Build the U-Net; arguments as for `unet.build_unet`, and

    patch_size: side of the patches of pixels that the first convolution folds into channels.
    attention_levels: at how many of the lowest resolutions attention follows each block.
    bottom_depth: residual blocks at the lowest resolution; default `block_depth`.
    embedding_dims: length of the sinusoidal embedding; an MLP of `widths[-1]` units follows.

    Returns a functional `keras.Model` with inputs named as the contract says; the untrained network
    predicts zeros.
    Raises ValueError if the resolution cannot be divided by the patches and then halved.
    """
    widths = tuple(widths)
    multiple = patch_size * 2 ** max(len(widths) - 1, 0)
    if not widths or image_size % multiple:
        raise ValueError(
            f"image_size must be a multiple of {multiple} for widths {widths} and patches of "
            f"{patch_size}, got {image_size}"
        )
    inputs = network_inputs(image_size, self_conditioning, num_classes)
    embedding = embed_conditions(inputs, embedding_dims, widths[-1], num_classes, dtype)
    x = _patches(inputs, widths[0], patch_size, dtype)
    bottom = len(widths) - 1

    def block(x, level, name):
        x = ModulatedBlock(widths[level], embedding, name, dtype)(x)
        attends = level > bottom - attention_levels
        return AttentionBlock(f"{name}_attention", dtype)(x) if attends else x

    skips = []
    for level in range(bottom):
        for number in range(block_depth):
            x = block(x, level, f"down_{level}_{number}")
            skips.append(x)
        x = layers.AveragePooling2D(2, dtype=dtype, name=f"down_{level}_pool")(x)
    for number in range(bottom_depth or block_depth):
        x = block(x, bottom, f"bottom_{number}")
    for level in reversed(range(bottom)):
        x = layers.UpSampling2D(2, dtype=dtype, name=f"up_{level}_double")(x)
        for number in range(block_depth):
            name = f"up_{level}_{number}"
            x = layers.Concatenate(dtype=dtype, name=f"{name}_join")([x, skips.pop()])
            x = block(x, level, name)
    # No normalisation and no activation before the output: at high and at low noise the target is
    # nearly linear in the noisy image, and the last layers must let that part through.
    outputs = layers.Conv2DTranspose(
        3, patch_size, patch_size, kernel_initializer="zeros", dtype="float32", name="outputs"
    )(x)
    return keras.Model(list(inputs.values()), outputs, name="modern_unet")


def embed_conditions(
    inputs: dict[str, Any], dims: int, units: int, num_classes: int, dtype: str
) -> Tensor:
    """Return the embedding (B, units) of noise level and name, for `Modulation`.

    inputs: the network's, by name. dims: length of the sinusoidal embedding that an MLP follows.
    """
    variances = layers.Flatten(dtype="float32", name="noise_levels")(inputs["noise_variances"])
    x = SinusoidalEmbedding(dims, name="noise_embedding")(variances)
    x = layers.Dense(units, activation="swish", dtype=dtype, name="mlp_1")(x)
    if "labels" in inputs:
        names = layers.Embedding(num_classes + 1, units, dtype=dtype, name="label_embedding")
        x = layers.Add(dtype=dtype, name="named_embedding")([x, names(inputs["labels"])])
    return layers.Dense(units, activation="swish", dtype=dtype, name="mlp_2")(x)


def _patches(inputs: dict[str, Any], width: int, patch_size: int, dtype: str):
    """Return the images' patches as features (B, S/patch_size, S/patch_size, width)."""
    x = inputs["noisy_images"]
    if "earlier_images" in inputs:
        x = layers.Concatenate(dtype=dtype, name="both_images")([x, inputs["earlier_images"]])
    return layers.Conv2D(width, patch_size, patch_size, dtype=dtype, name="patches")(x)
