"""The diffusion transformer (DiT): images as tokens, attention instead of convolution.

An image is cut into square patches; each becomes a token, a vector of the network's width, and the
blocks let all tokens attend to each other. Noise level and name reach every block as scale, shift
and gate of layer-normalised tokens ("adaLN-Zero"). It keeps the contract of `unet.build_unet`, and
no weight depends on the resolution. Peebles and Xie 2022 (arXiv:2212.09748).
"""

import math
from collections.abc import Callable
from typing import Any

import keras
from keras import layers, ops

from diffusion.support.contracts import Tensor
from diffusion.tokens import AddPositions, Patchify, Unpatchify
from diffusion.unet import SinusoidalEmbedding, network_inputs

HEAD_CHANNELS = 64  # channels of an attention head, where their number is not given
# The paper's table 1: width, blocks, heads
SIZES = {"S": (384, 12, 6), "B": (768, 12, 12), "L": (1024, 24, 16), "XL": (1152, 28, 16)}


@keras.saving.register_keras_serializable(package="diffusion")
class AdaptiveNorm(layers.Layer):
    """Normalise each token, then scale and shift it by what an embedding says.

    Input `[tokens (B, T, D), embedding (B, E)]`, output `[tokens (B, T, D), gates (B, 1, D)]`: a
    block multiplies its result by the gates before adding it. Shift, scale and gates, in this
    order, come from one dense layer that starts at zero, so a block starts as the identity
    ("adaLN-Zero"). Peebles and Xie 2022 (arXiv:2212.09748), section 3.2.
    gated: False leaves the gates out, of the weights and of the output.
    """

    def __init__(self, gated: bool = True, **kwargs: Any):
        super().__init__(**kwargs)
        self.gated = gated

    def build(self, input_shape):
        tokens, embedding = input_shape
        plain = {"center": False, "scale": False, "dtype": self.dtype_policy}
        self.norm = layers.LayerNormalization(epsilon=1e-6, name="norm", **plain)
        self.norm.build(tokens)
        units, policy = (3 if self.gated else 2) * tokens[-1], self.dtype_policy
        self.dense = layers.Dense(units, kernel_initializer="zeros", dtype=policy, name="dense")
        self.dense.build(embedding)
        self.built = True

    def call(self, inputs: list[Tensor]) -> Tensor | list[Tensor]:
        tokens, embedding = inputs
        parts = ops.split(self.dense(embedding)[:, None], 3 if self.gated else 2, axis=-1)
        shift, scale, *gates = parts
        tokens = self.norm(tokens) * (1 + scale) + shift
        return [tokens, *gates] if self.gated else tokens

    def compute_output_shape(self, input_shape):
        tokens = input_shape[0]
        return [tokens, (tokens[0], 1, tokens[2])] if self.gated else tokens

    def get_config(self):
        return {**super().get_config(), "gated": self.gated}


@keras.saving.register_keras_serializable(package="diffusion")
def fast_gelu(x: Tensor) -> Tensor:
    """The Gaussian error linear unit in its approximation by tanh, as the paper's code has it."""
    return ops.gelu(x, approximate=True)


def TransformerBlock(
    embedding: Tensor, heads: int, name: str, dtype: str | None = None
) -> Callable[[Tensor], Tensor]:
    """Return a function that adds self-attention to tokens (B, T, D), then a two-layer MLP.

    Both see the tokens through an `AdaptiveNorm` by the embedding (B, E), and both are gated by it.
    The MLP has 4 D units. name: the layers' names begin with it; see `modern_unet.ModulatedBlock`.
    Peebles and Xie 2022 (arXiv:2212.09748), figure 3, "DiT block with adaLN-Zero".
    """

    def gated(part, x):
        tokens, gates = AdaptiveNorm(dtype=dtype, name=f"{name}_{part}_norm")([x, embedding])
        tokens = attention(tokens) if part == "attention" else mlp(tokens)
        tokens = layers.Multiply(dtype=dtype, name=f"{name}_{part}_gate")([tokens, gates])
        return layers.Add(dtype=dtype, name=f"{name}_{part}_add")([x, tokens])

    def attention(tokens):
        width = tokens.shape[-1]
        # Glorot's uniform distribution for D x D: Keras's own takes the heads for more inputs.
        limit = math.sqrt(6 / (2 * width))
        initial = keras.initializers.RandomUniform(-limit, limit)
        options = {"kernel_initializer": initial, "dtype": dtype, "name": f"{name}_attention"}
        return layers.MultiHeadAttention(heads, width // heads, **options)(tokens, tokens)

    def mlp(tokens):
        width = tokens.shape[-1]
        x = layers.Dense(4 * width, fast_gelu, dtype=dtype, name=f"{name}_mlp_1")(tokens)
        return layers.Dense(width, dtype=dtype, name=f"{name}_mlp_2")(x)

    return lambda x: gated("mlp", gated("attention", x))


def build_transformer(
    image_size: int = 64,
    widths: tuple[int, ...] = (256,),
    block_depth: int = 8,
    embedding_dims: int = 64,
    dtype: str = "float32",
    self_conditioning: bool = False,
    num_classes: int = 0,
    *,
    patch_size: int = 4,
    heads: int | None = None,
    channels: int = 3,
    outputs: int | None = None,
) -> keras.Model:
    """Build the transformer; arguments as for `unet.build_unet`, but for

    widths, block_depth: as many blocks as a U-Net of these numbers has residual blocks,
        `block_depth (2 len(widths) - 1)`, all as wide as its bottom, `widths[-1]`.
    patch_size: side of a token's patch. Half the patch means four times the tokens, and sixteen
        times the attention between them.
    heads: of the attention; default one for each 64 channels.
    channels, outputs: of the images, and of the prediction if it has others: the paper's networks
        see 4 channels of a latent image and predict 8, noise and variance.

    Returns a functional `keras.Model` with inputs named as the contract says; the untrained network
    predicts zeros.
    Raises ValueError if the patches do not fill the image, or the heads or 4 do not divide the
    width.
    """
    width = widths[-1] if widths else 0
    heads = heads or max(1, width // HEAD_CHANNELS)
    if not widths or width % heads or width % 4:
        raise ValueError(
            f"the width must be a multiple of 4 and of the {heads} heads, got widths {widths}"
        )
    if image_size % patch_size:
        raise ValueError(
            f"image_size must be a multiple of the patches' {patch_size}, got {image_size}"
        )
    inputs = network_inputs(image_size, self_conditioning, num_classes, channels)
    embedding = _embedding(inputs, embedding_dims, width, num_classes, dtype)
    x = inputs["noisy_images"]
    if "earlier_images" in inputs:
        x = layers.Concatenate(dtype=dtype, name="both_images")([x, inputs["earlier_images"]])
    x = Patchify(patch_size, dtype=dtype, name="patchify")(x)
    x = layers.Dense(width, dtype=dtype, name="tokens")(x)
    x = AddPositions(dtype=dtype, name="positions")(x)
    for number in range(block_depth * (2 * len(widths) - 1)):
        x = TransformerBlock(embedding, heads, f"block_{number}", dtype)(x)
    x = AdaptiveNorm(gated=False, dtype=dtype, name="last_norm")([x, embedding])
    units = patch_size**2 * (outputs or channels)
    options = {"kernel_initializer": "zeros", "dtype": "float32"}
    x = layers.Dense(units, name="patches", **options)(x)
    x = Unpatchify(patch_size, dtype="float32", name="outputs")(x)
    return keras.Model(list(inputs.values()), x, name="transformer")


def dit(size: str) -> dict[str, Any]:
    """Return the paper's numbers for `build_transformer`, for a size such as "S/2" or "XL/8".

    The letters give width, blocks and heads, the number the side of a patch.
    Peebles and Xie 2022 (arXiv:2212.09748), table 1. Raises ValueError for another size.
    """
    letters, _, patch_size = size.partition("/")
    if letters not in SIZES or not patch_size.isdecimal() or int(patch_size) < 1:
        raise ValueError(
            f"no size {size!r}: choose one of {', '.join(SIZES)}, with a patch size, such as S/2"
        )
    width, blocks, heads = SIZES[letters]
    return {
        "widths": (width,),
        "block_depth": blocks,
        "embedding_dims": 256,
        "heads": heads,
        "patch_size": int(patch_size),
    }


def attention_maps(network: keras.Model, inputs: dict[str, Tensor], block: int) -> Tensor:
    """Return how much each token attends to each in a block: (B, heads, T, T), rows sum to 1.

    network, inputs: a transformer, and its inputs by name. block: its number, from 0.
    Raises ValueError for a block that the network does not have.
    """
    names = [layer.name for layer in network.layers]
    if f"block_{block}_attention" not in names:
        count = sum(name.endswith("_attention") for name in names)
        raise ValueError(f"no block {block}: the network has blocks 0 to {count - 1}")
    norm, attention = (network.get_layer(f"block_{block}_attention{end}") for end in ("_norm", ""))
    tokens = keras.Model(network.inputs, norm.output[0])(inputs)
    return attention(tokens, tokens, return_attention_scores=True)[1]


def _embedding(inputs: dict[str, Any], dims: int, width: int, num_classes: int, dtype: str):
    """Return the embedding (B, width) of noise level and name."""
    variances = layers.Flatten(dtype="float32", name="noise_levels")(inputs["noise_variances"])
    x = SinusoidalEmbedding(dims, name="noise_embedding")(variances)
    x = layers.Dense(width, "silu", dtype=dtype, name="noise_mlp_1")(x)
    x = layers.Dense(width, dtype=dtype, name="noise_mlp_2")(x)
    if "labels" in inputs:
        names = layers.Embedding(num_classes + 1, width, dtype=dtype, name="label_embedding")
        x = layers.Add(dtype=dtype, name="named_embedding")([x, names(inputs["labels"])])
    return layers.Activation("silu", dtype=dtype, name="embedding")(x)
