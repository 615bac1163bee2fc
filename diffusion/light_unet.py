"""A light U-Net: MobileNet's encoder of depthwise-separable convolutions, and a short decoder.

A 3x3 convolution from C to D channels takes 9 C D multiply-adds a position. A depthwise-separable
one splits it in two: a 3x3 filter for each channel by itself, then a 1x1 convolution that mixes
the channels, 9 C + C D. Howard et al. 2017 (arXiv:1704.04861), section 3.1. `mobilenet_encoder` and
`unet_decoder` are the parts; `build_light_unet` makes a diffusion network of them, with the
contract of `unet.build_unet`.
"""

from collections.abc import Callable
from typing import TypeAlias

import keras
from keras import layers

from diffusion.modern_unet import Modulation, embed_conditions
from diffusion.support.contracts import Tensor
from diffusion.support.normalization import FusedBatchNormalization
from diffusion.unet import network_inputs

WIDTHS = (64, 128, 256, 512, 1024)  # channels of the levels f1 to f5
DEPTHS = (1, 2, 2, 6, 2)  # their depthwise-separable blocks
# normalise(x, name): how a block normalises; `name` is that of the convolution before
Normalise: TypeAlias = Callable[[Tensor, str], Tensor]


def batch_normalised(x: Tensor, name: str) -> Tensor:
    """Normalise as MobileNet does: over the batch, then with a scale and an offset learnt."""
    return layers.BatchNormalization(name=f"{name}_norm")(x)


def DepthwiseBlock(
    width: int,
    name: str,
    normalise: Normalise = batch_normalised,
    strides: int = 1,
    depth_multiplier: int = 1,
    dtype: str | None = None,
) -> Callable[[Tensor], Tensor]:
    """Return a function that applies a depthwise-separable convolution.

    Maps `(B, H, W, any)` to `(B, H/strides, W/strides, width)`. Each of the two convolutions is
    normalised and cut off below 0 and above 6. depth_multiplier: 3x3 filters for each channel.
    Howard et al. 2017 (arXiv:1704.04861), figure 3.
    """
    options = {"padding": "same", "use_bias": False, "dtype": dtype}

    def finished(x, part):
        x = normalise(x, f"{name}_{part}")
        return layers.ReLU(6.0, dtype=dtype, name=f"{name}_{part}_relu")(x)

    def apply(x):
        multiplier = {"depth_multiplier": depth_multiplier, "name": f"{name}_depthwise"}
        x = finished(layers.DepthwiseConv2D(3, strides, **multiplier, **options)(x), "depthwise")
        x = layers.Conv2D(width, 1, name=f"{name}_pointwise", **options)(x)
        return finished(x, "pointwise")

    return apply


def mobilenet_encoder(
    images: Tensor,
    widths: tuple[int, ...] = WIDTHS,
    depths: tuple[int, ...] = DEPTHS,
    alpha: float = 1.0,
    depth_multiplier: int = 1,
    normalise: Normalise = batch_normalised,
    dtype: str | None = None,
) -> list[Tensor]:
    """Return the levels f1, f2, ... of images (B, H, W, C), each half the resolution before it.

    widths: channels of the levels, times `alpha`; the first convolution has half of the first.
    depths: depthwise-separable blocks at each level; the first block of a level halves the
        resolution, at level 1 the convolution before it.
    depth_multiplier: 3x3 filters for each channel.

    With the defaults, the levels are those of MobileNet, of `(B, H/2, W/2, 64)` to
    `(B, H/32, W/32, 1024)`. Howard et al. 2017 (arXiv:1704.04861), table 1.
    Raises ValueError for a level of fewer than 2 channels.
    """
    widths = tuple(int(width * alpha) for width in widths)
    if min(widths) < 2:
        raise ValueError(f"each level needs 2 channels or more, got {widths} for alpha {alpha:g}")
    options = {"padding": "same", "use_bias": False, "dtype": dtype, "name": "stem"}
    x = layers.Conv2D(widths[0] // 2, 3, 2, **options)(images)
    x = layers.ReLU(6.0, dtype=dtype, name="stem_relu")(normalise(x, "stem"))
    levels = []
    for level, (width, depth) in enumerate(zip(widths, depths, strict=True), start=1):
        for number in range(depth):
            strides = 2 if level > 1 and number == 0 else 1
            name = f"f{level}_{number}"
            x = DepthwiseBlock(width, name, normalise, strides, depth_multiplier, dtype)(x)
        levels.append(x)
    return levels


def unet_decoder(
    levels: list[Tensor],
    normalise: Normalise = batch_normalised,
    separable: bool = False,
    dtype: str | None = None,
) -> Tensor:
    """Join the levels of an encoder, from the last to the first: (B, H/2, W/2, C1) of f1.

    At each level a 3x3 convolution to the level's channels, normalised; between two levels, the
    resolution doubles and the next level is joined to the channels. There is no activation.
    separable: make the convolutions depthwise-separable.
    """
    convolution = layers.SeparableConv2D if separable else layers.Conv2D

    def convolve(x, width, name):
        return normalise(convolution(width, 3, padding="same", dtype=dtype, name=name)(x), name)

    x = convolve(levels[-1], levels[-1].shape[-1], f"up_{len(levels)}")
    for number in reversed(range(1, len(levels))):
        level, name = levels[number - 1], f"up_{number}"
        x = layers.UpSampling2D(2, dtype=dtype, name=f"{name}_double")(x)
        x = layers.Concatenate(dtype=dtype, name=f"{name}_join")([x, level])
        x = convolve(x, level.shape[-1], name)
    return x


def build_light_unet(
    image_size: int = 64,
    widths: tuple[int, ...] = WIDTHS[:4],
    block_depth: int = 2,
    embedding_dims: int = 64,
    dtype: str = "float32",
    self_conditioning: bool = False,
    num_classes: int = 0,
    *,
    alpha: float = 1.0,
    depth_multiplier: int = 1,
    separable_decoder: bool = False,
) -> keras.Model:
    """Build the light U-Net; with the defaults it has 6,944,730 parameters.

    Arguments as for `unet.build_unet`, and

    widths: channels of the encoder's levels f1, f2, ..., times `alpha`; the decoder starts at the
        last. The default has the four that a U-Net of MobileNet uses: at 64x64, f5 would be 2x2.
    block_depth: 2 gives each level as many blocks as MobileNet has, 1 about half of them.
    embedding_dims: length of the sinusoidal embedding; an MLP of as many units follows.
    depth_multiplier: 3x3 filters for each channel.
    separable_decoder: make the decoder's convolutions depthwise-separable, too.

    Noise level and name scale and shift the features after each block's normalisation, in the
    place of MobileNet's own scale and offset. Above f1, the decoder goes on to the full resolution
    and to the noisy images themselves, scaled and shifted in the same way: at high and at low noise
    the target is nearly linear in them.

    Returns a functional `keras.Model` with inputs named as the contract says; the untrained network
    predicts zeros.
    Raises ValueError if the resolution cannot be halved len(widths) times, or a level has fewer
    than 2 channels.
    """
    widths, multiple = tuple(widths), 2 ** len(widths)
    if not widths or image_size % multiple:
        raise ValueError(
            f"image_size must be a multiple of {multiple} for widths {widths} (one or more of "
            f"them), got {image_size}"
        )
    inputs = network_inputs(image_size, self_conditioning, num_classes)
    embedding = embed_conditions(inputs, embedding_dims, embedding_dims, num_classes, dtype)

    def modulated(x, name):
        return Modulation(dtype=dtype, name=f"{name}_modulation")([x, embedding])

    def normalise(x, name):
        x = FusedBatchNormalization(dtype=dtype, name=f"{name}_norm")(x)
        return x if name.endswith("depthwise") else modulated(x, name)

    images = inputs["noisy_images"]
    if self_conditioning:
        both = [images, inputs["earlier_images"]]
        images = layers.Concatenate(dtype=dtype, name="both_images")(both)
    depths = _depths(len(widths), block_depth)
    levels = mobilenet_encoder(images, widths, depths, alpha, depth_multiplier, normalise, dtype)
    x = unet_decoder(levels, normalise, separable_decoder, dtype)
    x = layers.UpSampling2D(2, dtype=dtype, name="up_0_double")(x)
    x = layers.Concatenate(dtype=dtype, name="up_0_join")([x, modulated(images, "images")])
    outputs = layers.Conv2D(
        3, 3, padding="same", kernel_initializer="zeros", dtype="float32", name="outputs"
    )(x)
    return keras.Model(list(inputs.values()), outputs, name="light_unet")


def _depths(levels: int, block_depth: int) -> tuple[int, ...]:
    """Return the blocks at each level: MobileNet's, times `block_depth` / 2."""
    usual = [DEPTHS[level] if level < len(DEPTHS) else 2 for level in range(levels)]
    return tuple(max(1, depth * block_depth // 2) for depth in usual)
