"""Measure networks against the processor's ceiling: whole training steps, and single layers.

The ceilings are measured in the same run: how many FLOP a second a large convolution reaches, and
how many bytes a second pass through memory. Cases take turns, and the least time of each counts,
since other processes can only add to it.
"""

import dataclasses
import json
import logging
import sys
import time
from collections.abc import Callable, Iterable

import keras
import numpy as np
from keras import layers, ops

from benchmarks.measures import alternate, timed
from benchmarks.recipes import RECIPES, Recipe
from diffusion.evaluation.costs import LayerCost, layer_costs, multiply_adds
from diffusion.support.backend import compiled
from diffusion.support.tables import lay_out
from diffusion.training.building import NETWORKS, build
from scripts import command

PRECISIONS = ("float32", "mixed_bfloat16")
BYTES = {"float32": 4, "mixed_bfloat16": 2}
TRAINING = 3  # a training step takes about three times the multiply-adds of an evaluation
NAMES = tuple(f"name {number}" for number in range(102))
DEFAULTS = ("chapter_network", "light_unet", "light_unet_half", "light_unet_separable")


@dataclasses.dataclass(frozen=True)
class Ceilings:
    """What the processor reaches: FLOP a second in a convolution, bytes a second in memory."""

    flops: float
    bandwidth: float

    def reached(self, intensity):
        """Return the most FLOP a second at an arithmetic intensity in FLOP per byte.

        Williams, Waterman and Patterson 2009, "Roofline", section 3.
        """
        return np.minimum(self.flops, np.asarray(intensity) * self.bandwidth)


def layer_case(layer, shapes: Iterable[tuple], batch_size: int) -> Callable:
    """Return a case, for `measures.alternate`: a layer's evaluation of a batch.

    shapes: of its inputs, without the batch. The layer is copied and computes in its own precision.
    """
    dtype = layer.compute_dtype
    inputs = [keras.Input(shape, dtype=dtype, name=f"x{i}") for i, shape in enumerate(shapes)]
    copy = type(layer).from_config(layer.get_config())
    if len(inputs) == 1:
        outputs = copy(inputs[0])
    else:
        several = isinstance(layer, layers.MultiHeadAttention)
        outputs = copy(*inputs) if several else copy(inputs)
    evaluate = compiled(keras.Model(inputs, outputs))
    random = np.random.default_rng(0)
    values = {
        each.name: ops.cast(random.normal(size=(batch_size, *each.shape[1:])), dtype)
        for each in inputs
    }
    return timed(lambda: _finish(evaluate(values)))


def _finish(outputs):
    for output in outputs if isinstance(outputs, (list, tuple)) else [outputs]:
        np.asarray(ops.ravel(output)[:1])  # waits for an accelerator


def measure_ceilings(precision: str, rounds: int = 3, seconds: float = 0.3) -> Ceilings:
    """Measure the ceilings for convolutions and elementwise work in a precision."""
    convolution = layers.Conv2D(256, 3, padding="same", dtype=precision)
    batch, shape = 64, (32, 32, 256)
    relu, passed = layers.ReLU(dtype=precision), (256, 64, 64, 64)
    cases = {
        "convolution": layer_case(convolution, [shape], batch),
        "memory": layer_case(relu, [passed[1:]], passed[0]),
    }
    least = {name: min(timing.rounds) for name, timing in alternate(cases, rounds, seconds).items()}
    flop = 2 * batch * 32 * 32 * 9 * 256 * 256
    moved = 2 * BYTES[precision] * float(np.prod(passed))
    return Ceilings(flop / least["convolution"], moved / least["memory"])


def measure_layers(
    network: keras.Model, batch_size: int = 64, rounds: int = 3, seconds: float = 0.02
) -> list[tuple[LayerCost, float]]:
    """Time each layer of a functional network by itself: pairs (cost, seconds for a batch).

    Layers of the same kind, numbers and input shapes are timed once. Only evaluation, no gradients.
    Raises ValueError for a network that uses a layer twice.
    """
    logging.getLogger("tensorflow").setLevel(logging.ERROR)  # it warns of many compiled functions
    cases, keys = {}, []
    for cost in layer_costs(network):
        layer = network.get_layer(cost.name)
        inputs = layer.input if isinstance(layer.input, list) else [layer.input]
        shapes = [tuple(tensor.shape[1:]) for tensor in inputs]
        numbers = {**layer.get_config(), "name": ""}
        keys.append(json.dumps([cost.kind, numbers, shapes], default=str))
        if keys[-1] not in cases:
            cases[keys[-1]] = layer_case(layer, shapes, batch_size)
    timings = alternate(cases, rounds, seconds)
    least = [min(timings[key].rounds) for key in keys]
    return list(zip(layer_costs(network), least, strict=True))


def build_recipe(recipe: Recipe, image_size: int, precision: str):
    """Build a recipe's model for random images of 102 names."""
    config = dataclasses.replace(recipe.config, image_size=image_size, precision=precision)

    def builder(*numbers):
        return NETWORKS[config.network](*numbers, **recipe.options)

    model = build(config, 1000, image_size, NAMES, builder)
    model.set_statistics(mean=0.5, variance=0.25)
    return model


def step_case(model, batch_size: int) -> Callable:
    """Return a case: training steps of a model of flowers by name, or without names."""
    random = np.random.default_rng(0)
    shape = (batch_size, model.image_size, model.image_size, 3)
    images = random.integers(256, size=shape, dtype="uint8")
    batch = images
    if model.labelled:
        labels = random.integers(len(NAMES), size=batch_size, dtype="int32")
        batch = {"images": images, "labels": labels}
    return timed(lambda: float(model.train_on_batch(batch)))


def measure_steps(
    recipes: Iterable[str],
    image_size: int = 64,
    precision: str = "float32",
    batch_size: int = 64,
    rounds: int = 3,
    seconds: float = 1.0,
) -> list[dict]:
    """Measure training steps of recipes, by their names, in turn; one dictionary for each.

    parameters, multiply_adds (of one evaluation of one image), seconds (a step, the least), flops
    (a second, in the step's convolutions and products) and share (of the ceiling).
    """
    ceilings = measure_ceilings(precision)
    models = {name: build_recipe(RECIPES[name], image_size, precision) for name in recipes}
    cases = {name: step_case(model, batch_size) for name, model in models.items()}
    rows = []
    for name, timing in alternate(cases, rounds, seconds).items():
        least, network = min(timing.rounds), models[name].network
        row = {
            "name": name,
            "precision": precision,
            "parameters": network.count_params(),
            "multiply_adds": multiply_adds(network),
            "seconds": least,
        }
        row["flops"] = 2 * TRAINING * row["multiply_adds"] * batch_size / least
        rows.append({**row, "share": row["flops"] / ceilings.flops, "ceiling": ceilings.flops})
    return rows


def as_text(rows: list[dict], markdown: bool = False) -> str:
    """Return a table of what `measure_steps` measures; times also relative to the first row's."""
    heads = ("recipe", "precision", "parameters", "multiply-adds", "ms a step", "relative")
    table = [(*heads, "GFLOP/s", "share of ceiling")]
    first = {row["precision"]: row["seconds"] for row in reversed(rows)}
    for row in rows:
        table.append(
            (
                *(row["name"], row["precision"], f"{row['parameters']:,}"),
                f"{row['multiply_adds'] / 1e6:,.0f} M",
                f"{1000 * row['seconds']:,.0f}",
                f"{row['seconds'] / first[row['precision']]:.2f}",
                *(f"{row['flops'] / 1e9:,.0f}", f"{row['share']:.0%}"),
            )
        )
    return "\n".join(lay_out(table, markdown, right=range(2, 8)))


def parse_arguments():
    parser = command.Parser(
        prog="python -m benchmarks.networks",
        description="Measure the training steps of networks, by recipe, against the processor's "
        "ceiling for convolutions. Let nothing else run meanwhile.",
    )
    add = parser.add_argument
    one = command.one_of(tuple(RECIPES))
    words = "which to measure (default: the chapter's and the light networks)"
    add("--recipes", type=one, nargs="+", metavar="NAME", default=DEFAULTS, help=words)
    parser.add_count("--image-size", 64, "side of the images", least=8)
    parser.add_count("--batch-size", 64, "images in a step")
    parser.add_count("--rounds", 3, "measurements of each case")
    words = f"of {', '.join(PRECISIONS)} (default: both)"
    one = command.one_of(PRECISIONS)
    add("--precisions", type=one, nargs="+", metavar="NAME", default=PRECISIONS, help=words)
    add("--markdown", action="store_true", help="print the table as Markdown")
    return parser.parse_args()


def main():
    arguments = parse_arguments()
    start, rows = time.perf_counter(), []
    for precision in arguments.precisions:
        sizes = arguments.image_size, precision, arguments.batch_size, arguments.rounds
        rows += measure_steps(arguments.recipes, *sizes)
        print(f"{precision}: {time.perf_counter() - start:.0f} s", file=sys.stderr)
    print(as_text(rows, arguments.markdown))
    for precision, flops in {row["precision"]: row["ceiling"] for row in rows}.items():
        print(f"ceiling in {precision}: {flops / 1e9:,.0f} GFLOP/s")
    return 0


if __name__ == "__main__":
    command.run(main)
