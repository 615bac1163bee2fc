"""The U-Net: predicts the noise in images from the noisy images and their noise variances.

Called as `network({"noisy_images": (B, S, S, 3), "noise_variances": (B, 1, 1, 1)})`, it returns
`(B, S, S, 3)`. The blocks are functions that return functions: `ResidualBlock(32)(x)` applies
layers to `x` and returns the result, as Keras's own layers do. Any functional Keras model of
registered layers with inputs of these names and this output can take its place in a
`DiffusionModel`.
"""

import math
from collections.abc import Callable
from typing import Any

import keras
from keras import layers, ops

from diffusion.support.contracts import Tensor
from diffusion.support.normalization import FusedBatchNormalization


@keras.saving.register_keras_serializable(package="diffusion")
class SinusoidalEmbedding(layers.Layer):
    """Embed a number as `dims` numbers: its sines and cosines at increasing frequencies.

    Input `(..., 1)`, output `(..., dims)`. The layer computes in float32 whatever the precision of
    the network, because the highest frequency makes a thousand turns between 0 and 1. Frequencies
    are spaced evenly in their logarithm from 1 to `max_frequency`. Vaswani et al. 2017
    (arXiv:1706.03762), section 3.5; listing 8-7.

    Raises ValueError if `dims` is odd or less than 4.
    """

    def __init__(self, dims: int = 32, max_frequency: float = 1000.0, **kwargs: Any):
        kwargs["dtype"] = "float32"
        super().__init__(**kwargs)
        if dims < 4 or dims % 2:
            raise ValueError(f"an embedding needs an even number of dims, 4 or more, got {dims}")
        self.dims, self.max_frequency = dims, max_frequency

    def call(self, x: Tensor) -> Tensor:
        frequencies = ops.exp(ops.linspace(0.0, math.log(self.max_frequency), self.dims // 2))
        # sin(2 pi f x) and cos(2 pi f x) for each frequency f
        angles = 2.0 * math.pi * ops.cast(frequencies, "float32") * x
        return ops.concatenate([ops.sin(angles), ops.cos(angles)], axis=-1)

    def compute_output_shape(self, input_shape):
        return (*input_shape[:-1], self.dims)

    def get_config(self):
        config = {"dims": self.dims, "max_frequency": self.max_frequency}
        return {**super().get_config(), **config}


def ResidualBlock(width: int, dtype: str | None = None) -> Callable[[Tensor], Tensor]:
    """Return a function that applies two 3x3 convolutions and adds its input to their output.

    Maps `(B, S, S, any)` to `(B, S, S, width)`. If the input has another width, a 1x1 convolution
    on the skip path adapts it. He et al. 2015 (arXiv:1512.03385); listing 8-8.
    """

    def apply(x):
        if x.shape[-1] == width:
            residual = x
        else:
            residual = layers.Conv2D(width, kernel_size=1, dtype=dtype)(x)
        x = FusedBatchNormalization(dtype=dtype)(x)
        x = layers.Conv2D(width, 3, padding="same", activation="swish", dtype=dtype)(x)
        x = layers.Conv2D(width, 3, padding="same", dtype=dtype)(x)
        return layers.Add(dtype=dtype)([x, residual])

    return apply


def DownBlock(
    width: int, block_depth: int, dtype: str | None = None
) -> Callable[[list[Any]], Tensor]:
    """Return a function that applies `block_depth` residual blocks, then halves the resolution.

    Called with `[x, skips]`; it appends each residual block's output to the list `skips`.
    Maps `(B, S, S, any)` to `(B, S/2, S/2, width)`. Listing 8-9.
    """

    def apply(x):
        x, skips = x
        for _ in range(block_depth):
            x = ResidualBlock(width, dtype)(x)
            skips.append(x)
        return layers.AveragePooling2D(pool_size=2, dtype=dtype)(x)

    return apply


def UpBlock(
    width: int, block_depth: int, dtype: str | None = None
) -> Callable[[list[Any]], Tensor]:
    """Return a function that doubles the resolution, then applies `block_depth` residual blocks.

    Called with `[x, skips]`; before each residual block it pops the last of the list `skips` and
    concatenates it to `x` along the channels. Maps `(B, S, S, any)` to `(B, 2S, 2S, width)`.
    Listing 8-9.
    """

    def apply(x):
        x, skips = x
        x = layers.UpSampling2D(size=2, interpolation="bilinear", dtype=dtype)(x)
        for _ in range(block_depth):
            x = layers.Concatenate(dtype=dtype)([x, skips.pop()])
            x = ResidualBlock(width, dtype)(x)
        return x

    return apply


def network_inputs(
    image_size: int, self_conditioning: bool = False, num_classes: int = 0, channels: int = 3
) -> dict[str, Any]:
    """Return the inputs of a network by name, as `support.contracts.Network` lists them."""
    shape = (image_size, image_size, channels)
    inputs = {
        "noisy_images": keras.Input(shape, name="noisy_images"),
        "noise_variances": keras.Input((1, 1, 1), name="noise_variances"),
    }
    if self_conditioning:
        inputs["earlier_images"] = keras.Input(shape, name="earlier_images")
    if num_classes:
        inputs["labels"] = keras.Input((), dtype="int32", name="labels")
    return inputs


def build_unet(
    image_size: int = 64,
    widths: tuple[int, ...] = (32, 64, 96, 128),
    block_depth: int = 2,
    embedding_dims: int = 32,
    dtype: str = "float32",
    self_conditioning: bool = False,
    num_classes: int = 0,
) -> keras.Model:
    """Build the U-Net of listing 8-6; with the defaults it has 1,953,507 parameters.

    image_size: side of the square images, a multiple of 2 ** (len(widths) - 1).
    widths: channels at each resolution; the last is the bottom of the U.
    block_depth: residual blocks at each resolution.
    embedding_dims: length of the embedding of the noise variance, even.
    dtype: precision of the layers between input and output, "float32" or "mixed_bfloat16"; inputs
        and output are float32 in any case.
    self_conditioning: add the input `earlier_images (B, S, S, 3)`, for the network's previous
        estimate of the image; see `self_conditioning`.
    num_classes: if above 0, add the input `labels (B,)`: whole numbers below `num_classes`, or
        `num_classes` for no name. An embedding of the label stands beside that of the noise
        variance.

    Returns a functional `keras.Model` with inputs `noisy_images (B, S, S, 3)`, `noise_variances
    (B, 1, 1, 1)` and those added. Its last layer starts at zero, so the untrained network predicts
    zeros.
    Ronneberger et al. 2015 (arXiv:1505.04597); Ho et al. 2020 (arXiv:2006.11239).

    Raises ValueError if the resolution cannot be halved len(widths) - 1 times.
    """
    widths = tuple(widths)
    if len(widths) < 2 or image_size % 2 ** (len(widths) - 1):
        raise ValueError(
            f"image_size must be a multiple of {2 ** (len(widths) - 1)} for widths {widths} "
            f"(two or more of them), got {image_size}"
        )
    inputs = network_inputs(image_size, self_conditioning, num_classes)
    x = inputs["noisy_images"]
    if self_conditioning:
        x = layers.Concatenate(dtype=dtype)([x, inputs["earlier_images"]])
    x = layers.Conv2D(widths[0], kernel_size=1, dtype=dtype)(x)
    embedding = SinusoidalEmbedding(embedding_dims, name="noise_embedding")
    beside = [embedding(inputs["noise_variances"])]
    if num_classes:
        names = layers.Embedding(num_classes + 1, embedding_dims, name="label_embedding")
        beside.append(layers.Reshape((1, 1, embedding_dims))(names(inputs["labels"])))
    spread = layers.UpSampling2D(image_size, interpolation="nearest", dtype=dtype)
    x = layers.Concatenate(dtype=dtype)([x, *(spread(embedding) for embedding in beside)])

    skips = []
    for width in widths[:-1]:
        x = DownBlock(width, block_depth, dtype)([x, skips])
    for _ in range(block_depth):
        x = ResidualBlock(widths[-1], dtype)(x)
    for width in reversed(widths[:-1]):
        x = UpBlock(width, block_depth, dtype)([x, skips])

    pred_noises = layers.Conv2D(
        3, kernel_size=1, kernel_initializer="zeros", dtype="float32", name="pred_noises"
    )(x)
    return keras.Model(list(inputs.values()), pred_noises, name="unet")
