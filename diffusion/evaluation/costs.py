"""What a network costs: its multiply-adds and the bytes it moves, layer by layer.

Counted is what matrix products and convolutions take: one multiply-add, two FLOP, for each
product of a weight (or, in attention, of a token) with a number. Zeros of the padding count.
Elementwise work does not: activations, normalisation, biases, additions, pooling, upsampling, and
looking up an embedding are zero here. They are few operations, but they do move bytes.
"""

import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

import keras
from keras import layers

from diffusion.modern_unet import Modulation
from diffusion.transformer import AdaptiveNorm

# rule(layer, shapes of the inputs, shapes of the outputs) -> multiply-adds for one image
Shapes: TypeAlias = list[tuple]
Rule: TypeAlias = Callable[[Any, Shapes, Shapes], int]


@dataclasses.dataclass(frozen=True)
class LayerCost:
    """One use of a layer, for one image.

    name, kind: the layer's name and its class's name.
    output_shape: without the batch, e.g. `(S, S, C)`.
    parameters: numbers in its weights; a layer that is used twice has a row for each use.
    multiply_adds: as the module's docstring counts them.
    features: numbers it reads and writes; what it keeps to itself in between is not counted.
    """

    name: str
    kind: str
    output_shape: tuple[int, ...]
    parameters: int
    multiply_adds: int
    features: int

    def bytes_moved(self, bytes_per_number: int = 4, batch_size: int = 1) -> float:
        """Return the bytes moved for one image if the weights are read once for each batch."""
        return bytes_per_number * (self.features + self.parameters / batch_size)

    def intensity(self, bytes_per_number: int = 4, batch_size: int = 1) -> float:
        """Return the arithmetic intensity in FLOP per byte.

        Williams, Waterman and Patterson 2009, "Roofline", section 3.
        """
        return 2 * self.multiply_adds / self.bytes_moved(bytes_per_number, batch_size)


def layer_costs(network: keras.Model, rules: Mapping[type, Rule] | None = None) -> list[LayerCost]:
    """Return the cost of each layer of a functional network, in the order they are applied.

    rules: for layers of your own, added to `RULES`: type -> rule(layer, input shapes, output
        shapes), where the shapes have no batch. A subclass follows its base class's rule.
    Raises ValueError for a layer with weights, or a matrix product, that no rule counts, and for
    sizes that are left open.
    """
    rules = {**RULES, **(rules or {})}
    depths = sorted(network._nodes_by_depth, reverse=True)  # of the graph, from inputs to output
    nodes = [node for depth in depths for node in network._nodes_by_depth[depth]]
    return [_cost(node.operation, node, rules) for node in nodes if not node.is_input]


def multiply_adds(network: keras.Model, rules: Mapping[type, Rule] | None = None) -> int:
    """Return the multiply-adds that a functional network takes for one image.

    One evaluation, forward. Training takes about three times as many. Arguments and errors as for
    `layer_costs`.
    """
    return sum(row.multiply_adds for row in layer_costs(network, rules))


def _cost(layer, node, rules):
    inputs, outputs = ([_shape(layer, x) for x in t] for t in (node.input_tensors, node.outputs))
    read = {id(tensor): shape for tensor, shape in zip(node.input_tensors, inputs, strict=True)}
    return LayerCost(
        layer.name,
        type(layer).__name__,
        outputs[0],
        sum(math.prod(weight.shape) for weight in getattr(layer, "weights", ())),
        _rule_of(layer, rules)(layer, inputs, outputs),
        sum(math.prod(shape) for shape in [*read.values(), *outputs]),
    )


def _shape(layer, tensor):
    shape = tuple(tensor.shape[1:])
    if None in shape:
        raise ValueError(
            f"layer {layer.name} has an open size, {shape}: build the network for one image size"
        )
    return shape


def _rule_of(layer, rules) -> Rule:
    for kind in type(layer).__mro__:
        if kind in rules:
            return rules[kind]
    if getattr(layer, "weights", ()) or type(layer).__name__ in UNCOUNTED:
        raise ValueError(
            f"no rule counts the multiply-adds of layer {layer.name}, a {type(layer).__name__}: "
            "give one, rules={type: rule(layer, input_shapes, output_shapes)}"
        )
    return _none


# Matrix products that have no weights, and so would pass for elementwise work.
UNCOUNTED = {"Attention", "AdditiveAttention", "DotProductAttention", "Dot"}
UNCOUNTED |= {"Matmul", "Einsum", "Tensordot", "Vdot", "Inner", "Outer", "Conv", "DepthwiseConv"}


def _none(layer, inputs, outputs):
    return 0


def _positions(shape):
    return math.prod(shape[:-1])


def _kernel_at_each_output(layer, inputs, outputs):
    """Each output position takes the whole kernel once; a grouped kernel is smaller already."""
    return _positions(outputs[0]) * math.prod(layer.kernel.shape)


def _kernel_at_each_input(layer, inputs, outputs):
    return _positions(inputs[0]) * math.prod(layer.kernel.shape)


def _separable(layer, inputs, outputs):
    kernels = layer.depthwise_kernel, layer.pointwise_kernel
    return _positions(outputs[0]) * sum(math.prod(kernel.shape) for kernel in kernels)


def _attention(layer, inputs, outputs):
    """Four projections, the products of queries with keys, and those of weights with values."""
    query, value = inputs[:2]
    key = inputs[2] if len(inputs) > 2 else value
    if any(len(shape) != 2 for shape in (query, value, key)):
        raise ValueError(f"layer {layer.name} attends over {query}: only tokens (T, D) are counted")
    tokens = {"query": query[0], "key": key[0], "value": value[0], "output": query[0]}
    kernels = {name: getattr(layer, f"{name}_dense").kernel for name in tokens}
    projections = sum(count * math.prod(kernels[name].shape) for name, count in tokens.items())
    products = layer.num_heads * query[0] * key[0] * (layer.key_dim + layer.value_dim)
    return projections + products


def _modulation(layer, inputs, outputs):
    return math.prod(layer.dense.kernel.shape)  # of the embedding, of which an image has one


RULES: dict[type, Rule] = {
    layers.Conv2D: _kernel_at_each_output,
    layers.DepthwiseConv2D: _kernel_at_each_output,
    layers.SeparableConv2D: _separable,
    layers.Conv2DTranspose: _kernel_at_each_input,
    layers.Dense: _kernel_at_each_output,
    layers.MultiHeadAttention: _attention,
    Modulation: _modulation,
    AdaptiveNorm: _modulation,
    layers.BatchNormalization: _none,
    layers.LayerNormalization: _none,
    layers.GroupNormalization: _none,
    layers.Embedding: _none,
}
