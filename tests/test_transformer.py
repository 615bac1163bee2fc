"""The transformer is the paper's: its sizes, its blocks, its attention."""

import math

import keras
import numpy as np
import pytest

from diffusion.evaluation.costs import multiply_adds
from diffusion.transformer import (
    TransformerBlock,
    attention_maps,
    build_transformer,
    dit,
)

# Table 4 of arXiv:2212.09748: millions of parameters, billions of multiply-adds ("Gflops"), at
# 32x32x4 with 1,000 names.
PAPER = {
    **{"S/2": (33, 6.06), "S/4": (None, 1.41), "S/8": (None, 0.36)},
    **{"B/2": (130, 23.01), "B/4": (None, 5.56), "B/8": (None, 1.42)},
    **{"L/2": (458, 80.71), "L/4": (None, 19.70), "L/8": (None, 5.01)},
    **{"XL/2": (675, 118.64), "XL/4": (None, 29.05), "XL/8": (None, 7.39)},
}
RNG = np.random.default_rng(0)


def counted(size):
    """Return the parameters and multiply-adds of a size of the paper's, from one and two blocks.

    All blocks are alike, so nothing needs the memory for 28 of them.
    """
    numbers = dit(size)
    blocks = numbers.pop("block_depth")
    of_the_paper = {"num_classes": 1000, "channels": 4, "outputs": 8, **numbers}
    one, two = (
        np.array([network.count_params(), multiply_adds(network)])
        for network in (build_transformer(32, block_depth=n, **of_the_paper) for n in (1, 2))
    )
    return one + (blocks - 1) * (two - one)


@pytest.mark.parametrize("size", PAPER)
def test_the_papers_sizes_have_the_papers_parameters_and_multiply_adds(size):
    parameters, multiplications = counted(size)
    millions, billions = PAPER[size]
    assert millions is None or round(parameters / 1e6) == millions
    assert multiplications / 1e9 == pytest.approx(billions, abs=0.01, rel=5e-4)


def test_with_its_fixed_positions_the_largest_has_what_the_papers_code_prints():
    assert counted("XL/2")[0] + 256 * 1152 == 675_129_632


def test_the_parameters_follow_from_the_papers_description():
    width, blocks, numbers = 384, 12, 4 * 2**2
    attention, mlp, modulation = 4 * width**2, 8 * width**2, 6 * width**2
    biases = (4 + 5 + 6) * width
    total = blocks * (attention + mlp + modulation + biases)
    total += 256 * width + width + width**2 + width + 1001 * width  # noise level, name
    total += numbers * width + width  # tokens
    total += 2 * (width**2 + width) + 2 * numbers * (width + 1)  # the last layer
    network = build_transformer(32, num_classes=1000, channels=4, outputs=8, **dit("S/2"))
    assert network.count_params() == total


def norm(x):
    x = x - x.mean(axis=-1, keepdims=True)
    return x / np.sqrt((x**2).mean(axis=-1, keepdims=True) + 1e-6)


def gelu(x):
    erf = np.vectorize(math.erf)
    return x * (1 + erf(x / math.sqrt(2))) / 2


def test_a_block_is_the_papers_token_by_token():
    """Each head and each token computed alone, in float64, from the block's weights."""
    count, tokens, width, heads = 2, 6, 8, 2
    x, embedding = keras.Input((tokens, width)), keras.Input((width,))
    network = keras.Model([x, embedding], TransformerBlock(embedding, heads, "one")(x))
    for weight in network.weights:
        weight.assign(0.5 * RNG.normal(size=weight.shape))
    w = {weight.path: np.array(weight, "float64") for weight in network.weights}
    given = RNG.normal(size=(count, tokens, width)), RNG.normal(size=(count, width))

    def modulated(x, part, c):
        kernel, bias = w[f"one_{part}_norm/dense/kernel"], w[f"one_{part}_norm/dense/bias"]
        shift, scale, gate = np.split(c @ kernel + bias, 3)
        return norm(x) * (1 + scale) + shift, gate

    expected = []
    for x, c in zip(*given, strict=True):
        inner, gate = modulated(x, "attention", c)
        attended = np.zeros_like(x)
        for head in range(heads):
            q, k, v = (
                inner @ w[f"one_attention/{name}/kernel"][:, head]
                + w[f"one_attention/{name}/bias"][head]
                for name in ("query", "key", "value")
            )
            for token in range(tokens):
                weights = np.exp(k @ q[token] / math.sqrt(width // heads))
                mean = weights @ v / weights.sum()
                attended[token] += mean @ w["one_attention/attention_output/kernel"][head]
        x = x + gate * (attended + w["one_attention/attention_output/bias"])
        inner, gate = modulated(x, "mlp", c)
        hidden = gelu(inner @ w["one_mlp_1/kernel"] + w["one_mlp_1/bias"])
        expected.append(x + gate * (hidden @ w["one_mlp_2/kernel"] + w["one_mlp_2/bias"]))
    outputs = network([np.float32(part) for part in given])
    # The approximation of GELU by tanh is off by up to 5e-4 for each of 32 units.
    np.testing.assert_allclose(outputs, expected, atol=0.02)


def test_without_positions_it_would_not_know_where_a_patch_is(monkeypatch):
    """Moving the patches of an image moves the prediction's, unless positions are added."""

    def predictions():
        network = build_transformer(16, (16,), 2, 8)
        keras.utils.set_random_seed(0)
        for weight in network.weights:
            weight.assign(0.2 * np.random.default_rng(0).normal(size=weight.shape))
        images = np.random.default_rng(1).normal(size=(1, 16, 16, 3))
        variances = np.full((2, 1, 1, 1), 0.5)
        both = np.concatenate([images, np.roll(images, 4, axis=2)])
        here, there = np.asarray(network({"noisy_images": both, "noise_variances": variances}))
        return np.roll(here, 4, axis=1), there

    assert np.abs(np.subtract(*predictions())).max() > 0.01
    monkeypatch.setattr("diffusion.tokens.positions", lambda side, dims: np.zeros((side**2, dims)))
    np.testing.assert_allclose(*predictions(), atol=1e-4)


def test_attention_maps_are_shares_and_are_those_of_the_block():
    network = build_transformer(16, (16,), 2, 8, heads=2)
    for weight in network.weights:
        weight.assign(0.5 * RNG.normal(size=weight.shape))
    inputs = {
        "noisy_images": RNG.normal(size=(3, 16, 16, 3)).astype("float32"),
        "noise_variances": np.full((3, 1, 1, 1), 0.5, "float32"),
    }
    maps = np.asarray(attention_maps(network, inputs, block=1))
    assert maps.shape == (3, 2, 16, 16)
    np.testing.assert_allclose(maps.sum(axis=-1), 1, atol=1e-5)
    # The block's own attention, from these shares.
    layer = network.get_layer("block_1_attention")
    read = keras.Model(network.inputs, network.get_layer("block_1_attention_norm").output[0])
    tokens = np.asarray(read(inputs))
    w = {weight.path.rsplit("/", 2)[1] + weight.name: np.array(weight) for weight in layer.weights}
    values = np.einsum("btd,dhe->bthe", tokens, w["valuekernel"]) + w["valuebias"]
    mixed = np.einsum("bhts,bshe->bthe", maps, values)
    expected = np.einsum("bthe,hed->btd", mixed, w["attention_outputkernel"])
    expected += w["attention_outputbias"]
    np.testing.assert_allclose(layer(tokens, tokens), expected, atol=1e-4)
    with pytest.raises(ValueError, match="no block 2: the network has blocks 0 to 1"):
        attention_maps(network, inputs, block=2)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: build_transformer(18), "a multiple of the patches' 4, got 18"),
        (
            lambda: build_transformer(16, (30,), heads=4),
            r"multiple of 4 and of the 4 heads, got widths \(30,\)",
        ),
        (lambda: build_transformer(16, ()), r"got widths \(\)"),
        (lambda: dit("M/2"), "no size 'M/2': choose one of S, B, L, XL, .* such as S/2"),
        (lambda: dit("S"), "no size 'S'"),
    ],
)
def test_sizes_that_do_not_fit_are_refused_in_one_line(call, words):
    with pytest.raises(ValueError, match=words) as error:
        call()
    assert "\n" not in str(error.value)
