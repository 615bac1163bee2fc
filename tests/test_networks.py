"""What every network beside the chapter's promises: the contract of `support.contracts`."""

import functools
import importlib.util

import keras
import numpy as np
import pytest
from processes import python

from diffusion.light_unet import build_light_unet
from diffusion.model import DiffusionModel
from diffusion.modern_unet import build_modern_unet
from diffusion.schedules import OffsetCosineSchedule
from diffusion.training.building import NETWORKS
from diffusion.transformer import build_transformer

BUILDERS = {
    "modern_unet": functools.partial(build_modern_unet, widths=(8, 16)),
    "transformer": functools.partial(build_transformer, widths=(16,), block_depth=2, heads=2),
    "light_unet": functools.partial(build_light_unet, widths=(8, 16), block_depth=1),
}
HERE = keras.backend.backend()
THERE = {"tensorflow": "jax", "jax": "tensorflow"}.get(HERE, "")


@pytest.fixture(scope="module", params=BUILDERS)
def build(request):
    """Build a small network for 16x16 images and five names."""
    return functools.partial(
        BUILDERS[request.param], image_size=16, embedding_dims=8, num_classes=5
    )


@pytest.fixture(scope="module")
def network(build):
    return perturbed(build())


def inputs_of(size=16, count=4, self_conditioning=False):
    rng = np.random.default_rng(0)
    shape = (count, size, size, 3)
    inputs = {
        "noisy_images": rng.normal(size=shape).astype("float32"),
        "noise_variances": np.linspace(0.1, 0.9, count, dtype="float32").reshape(-1, 1, 1, 1),
        "labels": np.arange(count, dtype="int32"),
    }
    if self_conditioning:
        inputs["earlier_images"] = rng.normal(size=shape).astype("float32")
    return inputs


def perturbed(network):
    """Give every weight a value: much of a network starts at zero."""
    rng = np.random.default_rng(1)
    for weight in network.trainable_weights:
        weight.assign(weight + 0.1 * rng.normal(size=weight.shape))
    return network


def outputs_of(network, **changes):
    return np.asarray(network({**inputs_of(network.output_shape[1]), **changes}))


def test_every_network_of_the_configuration_is_tested_here():
    assert set(BUILDERS) == set(NETWORKS) - {"unet"}  # `test_unet` has the chapter's


@pytest.mark.parametrize("self_conditioning", [False, True])
def test_an_untrained_network_predicts_zeros_of_the_images_shape(build, self_conditioning):
    network = build(self_conditioning=self_conditioning)
    outputs = network(inputs_of(self_conditioning=self_conditioning))
    assert keras.backend.standardize_dtype(outputs.dtype) == "float32"
    np.testing.assert_array_equal(outputs, np.zeros((4, 16, 16, 3)))


def test_noise_level_name_and_earlier_images_all_reach_the_prediction(build):
    network = perturbed(build(self_conditioning=True))
    inputs = inputs_of(self_conditioning=True)
    before = np.asarray(network(inputs))
    for name, value in inputs.items():
        changed = {**inputs, name: value[::-1].copy()}
        assert np.abs(np.asarray(network(changed)) - before).max() > 1e-3, name


def test_each_image_hears_its_own_name_alone(network):
    before = outputs_of(network)
    after = outputs_of(network, labels=np.int32([0, 5, 2, 3]))  # the second has none now
    changed = np.abs(after - before).max(axis=(1, 2, 3)) > 1e-4
    assert changed.tolist() == [False, True, False, False]


def test_a_names_embedding_learns_from_its_own_images_alone(build):
    network = perturbed(build())
    table = network.get_layer("label_embedding").embeddings
    before = np.array(table)
    network.compile(keras.optimizers.SGD(1.0), loss="mean_squared_error")
    labels = np.int32([1, 1, 3, 5])
    network.train_on_batch({**inputs_of(), "labels": labels}, np.zeros((4, 16, 16, 3)))
    moved = np.abs(np.array(table) - before).max(axis=1) > 0
    assert moved.tolist() == [False, True, False, True, False, True]


def test_weights_carry_over_to_twice_the_size(build):
    small, large = (build(image_size=size) for size in (16, 32))
    assert [w.shape for w in small.weights] == [w.shape for w in large.weights]
    large.set_weights(perturbed(small).get_weights())
    outputs = outputs_of(large)
    assert outputs.shape == (4, 32, 32, 3) and np.isfinite(outputs).all() and outputs.std() > 0.01


def test_in_bfloat16_it_predicts_nearly_the_same_from_weights_in_float32(build, network):
    mixed = build(dtype="mixed_bfloat16")
    mixed.set_weights(network.get_weights())
    assert {weight.dtype for weight in mixed.weights} == {"float32"}
    plain, rounded = outputs_of(network), outputs_of(mixed)
    assert rounded.dtype == np.float32
    assert 0 < np.abs(rounded - plain).max() < 0.05 * np.abs(plain).max()
    assert {layer.compute_dtype for layer in mixed.layers} == {"float32", "bfloat16"}


def test_a_model_with_it_reloads_in_safe_mode_to_the_bit(network, tmp_path):
    model = DiffusionModel(network, OffsetCosineSchedule(), class_names="abcde")
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras", safe_mode=True)
    options = {"seed": 1, "labels": ["a", None], "guidance": 2.0}
    np.testing.assert_array_equal(model.generate(2, 2, **options), again.generate(2, 2, **options))


PREDICT = """
import sys
import keras
import numpy as np
import diffusion.training.building

network = keras.saving.load_model(sys.argv[1] + "/network.keras")
inputs = dict(np.load(sys.argv[1] + "/inputs.npz"))
np.save(sys.argv[1] + "/outputs.npy", np.asarray(network(inputs)))
"""


@pytest.mark.slow
@pytest.mark.skipif(not THERE or not importlib.util.find_spec(THERE), reason="needs both backends")
def test_tensorflow_and_jax_predict_the_same(network, tmp_path):
    network.save(tmp_path / "network.keras")
    np.savez(tmp_path / "inputs.npz", **inputs_of())
    python("-c", PREDICT, tmp_path, KERAS_BACKEND=THERE)
    theirs = np.load(tmp_path / "outputs.npy")
    np.testing.assert_allclose(theirs, outputs_of(network), rtol=1e-4, atol=1e-5)


def test_layer_names_do_not_depend_on_what_was_built_before(build):
    """TensorFlow adds gradients in the order of names: a resumed run would end differently."""
    first, second = (build() for _ in range(2))
    assert [layer.name for layer in first.layers] == [layer.name for layer in second.layers]
    assert [each.path for each in first.weights] == [each.path for each in second.weights]
