"""Multiply-adds agree with closed forms, with the design's figure and with the traced graph."""

import math
import re

import keras
import pytest
from conftest import ON_TENSORFLOW
from keras import layers, ops

from diffusion.evaluation.costs import layer_costs, multiply_adds
from diffusion.modern_unet import Modulation, build_modern_unet
from diffusion.unet import build_unet


def build_transformer(tokens=16, width=12, heads=3):
    """Patches, positions, one block and back: what a transformer of images is made of."""
    images = keras.Input((16, 16, 3))
    x = layers.Reshape((tokens, 768 // tokens))(images)
    x = layers.Dense(width)(x)
    y = layers.LayerNormalization()(x)
    x = layers.Add()([x, layers.MultiHeadAttention(heads, width // heads)(y, y)])
    y = layers.Dense(width)(layers.Dense(4 * width, activation="gelu")(x))
    x = layers.Dense(768 // tokens)(layers.Add()([x, y]))
    return keras.Model(images, layers.Reshape((16, 16, 3))(x))


def build_mobile(groups=1):
    """Depthwise and separable convolutions, strides, groups, and the way back up."""
    images = keras.Input((16, 16, 3))
    x = layers.Conv2D(8, 3, strides=2, padding="same")(images)
    x = layers.DepthwiseConv2D(3, depth_multiplier=2, padding="same")(x)
    x = layers.SeparableConv2D(12, 3, strides=2, padding="same", use_bias=False)(x)
    x = layers.Conv2D(6, 3, groups=groups)(x)
    return keras.Model(images, layers.Conv2DTranspose(3, 2, 2)(x))


NETWORKS = {
    "unet": lambda: build_unet(),
    "unet, names": lambda: build_unet(16, (8, 12, 16), 1, 8, num_classes=5),
    "modern": lambda: build_modern_unet(num_classes=102),
    "modern, bfloat16": lambda: build_modern_unet(16, (8, 16), 1, 8, "mixed_bfloat16", True),
    "transformer": build_transformer,
    "mobile": build_mobile,
}


def count_in_graph(network):
    """Count half of the FLOP that TensorFlow's profiler finds in convolutions and products.

    The profiler does not know `Einsum`, which takes a product for each combination of its indices,
    and skips convolutions in groups.
    """
    import tensorflow as tf

    inputs = [tf.TensorSpec((1, *tensor.shape[1:]), tensor.dtype) for tensor in network.inputs]
    call = tf.function(lambda *images: network(images[0] if len(images) == 1 else list(images)))
    graph = call.get_concrete_function(*inputs).graph
    builder = tf.compat.v1.profiler.ProfileOptionBuilder
    options = builder(builder.float_operation()).with_empty_output().build()
    found = tf.compat.v1.profiler.profile(graph, cmd="op", options=options)
    flop, children = 0, list(found.children)
    while children:
        child = children.pop()
        children += child.children
        flop += child.float_ops if re.search("Conv2[dD]|MatMul", child.name) else 0
    for operation in graph.get_operations():
        if operation.type == "Einsum":
            indices = operation.get_attr("equation").decode().split("->")[0].split(",")
            sizes = {}
            for letters, tensor in zip(indices, operation.inputs, strict=True):
                sizes |= dict(zip(letters, tensor.shape, strict=True))
            flop += 2 * math.prod(sizes.values())
    return flop // 2


@pytest.mark.skipif(not ON_TENSORFLOW, reason="counts in TensorFlow's graph")
@pytest.mark.parametrize("name", NETWORKS)
def test_multiply_adds_agree_with_tensorflows_profiler(name):
    network = NETWORKS[name]()
    assert multiply_adds(network) == count_in_graph(network) > 0


def test_the_chapters_network_takes_the_documented_multiply_adds():
    assert multiply_adds(build_unet()) == pytest.approx(1.14e9, abs=0.005e9)


def test_convolutions_take_what_their_formulas_say():
    rows = [row for row in layer_costs(build_mobile(groups=3)) if row.kind != "Reshape"]
    assert [row.multiply_adds for row in rows] == [
        8 * 8 * (3 * 3 * 3 * 8),
        8 * 8 * (3 * 3 * 16),  # one filter a channel, two of them
        4 * 4 * (3 * 3 * 16 + 16 * 12),
        2 * 2 * (3 * 3 * 4 * 6),  # three groups of 4 channels in and 2 out
        2 * 2 * (2 * 2 * 6 * 3),  # each input position adds a patch of 2x2
    ]


def test_attention_takes_four_projections_and_two_products_of_all_pairs():
    query, value = keras.Input((5, 6)), keras.Input((7, 4))
    attention = layers.MultiHeadAttention(2, key_dim=3, value_dim=8)
    projections = 5 * 6 * (2 * 3) + 7 * 4 * (2 * 3) + 7 * 4 * (2 * 8) + 5 * (2 * 8) * 6
    network = keras.Model([query, value], attention(query, value))
    assert multiply_adds(network) == projections + 2 * 5 * 7 * 3 + 2 * 5 * 7 * 8


def test_a_modulation_multiplies_its_embedding_once():
    features, embedding = keras.Input((8, 8, 6)), keras.Input((10,))
    network = keras.Model([features, embedding], Modulation()([features, embedding]))
    (row,) = layer_costs(network)
    assert (row.kind, row.output_shape, row.parameters) == ("Modulation", (8, 8, 6), 132)
    assert (row.multiply_adds, row.features) == (10 * 12, 2 * 8 * 8 * 6 + 10)


def test_intensity_is_flop_by_the_bytes_of_inputs_outputs_and_weights():
    images = keras.Input((8, 8, 3))
    (row,) = layer_costs(keras.Model(images, layers.Conv2D(16, 3, padding="same")(images)))
    inputs, outputs, weights = 8 * 8 * 3, 8 * 8 * 16, 3 * 3 * 3 * 16 + 16
    assert row.bytes_moved() == 4 * (inputs + outputs + weights)
    assert row.bytes_moved(2, batch_size=64) == 2 * (inputs + outputs + weights / 64)
    flop = 2 * 8 * 8 * 3 * 3 * 3 * 16
    assert row.intensity() == flop / (4 * (inputs + outputs + weights))


def test_a_tensor_read_twice_is_moved_once_and_a_layer_used_twice_counts_twice():
    tokens = keras.Input((4, 6))
    dense = layers.Dense(6)
    attention = layers.MultiHeadAttention(1, 6)
    rows = layer_costs(keras.Model(tokens, dense(attention(tokens, tokens)) + dense(tokens)))
    features = {row.kind: row.features for row in rows}
    assert features == {"MultiHeadAttention": 48, "Dense": 48, "Add": 72}
    assert [row.multiply_adds for row in rows if row.kind == "Dense"] == [4 * 36] * 2


@pytest.mark.parametrize(
    "apply",
    [
        layers.LSTM(4, return_sequences=True, name="it"),
        layers.Attention(name="it"),
        lambda x: ops.matmul(x, ops.transpose(x, (0, 2, 1))),
        lambda x: ops.einsum("bij,bkj->bik", x, x),
    ],
)
def test_what_no_rule_counts_is_refused_in_one_line_and_a_rule_can_be_given(apply):
    tokens = keras.Input((4, 6))
    outputs = apply([tokens, tokens]) if isinstance(apply, layers.Attention) else apply(tokens)
    network = keras.Model(tokens, outputs)
    layer = network.operations[-1]
    with pytest.raises(ValueError, match=f"of layer {layer.name}, a .*: give one") as error:
        multiply_adds(network)
    assert "\n" not in str(error.value)
    assert multiply_adds(network, {type(layer): lambda *_: 7}) == 7


def test_open_sizes_are_refused_in_one_line():
    images = keras.Input((None, None, 3))
    network = keras.Model(images, layers.Conv2D(4, 3)(images))
    with pytest.raises(ValueError, match=r"open size.*: build the network for one image size"):
        multiply_adds(network)
