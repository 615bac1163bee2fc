"""The U-Net: shapes, the embedding's formula, the blocks, saving and loading."""

import keras
import numpy as np
import pytest
from conftest import ON_TENSORFLOW

from diffusion.support.normalization import FusedBatchNormalization
from diffusion.unet import DownBlock, ResidualBlock, UpBlock, build_unet


def test_the_embedding_stays_float32_in_a_bfloat16_network():
    network = build_unet(16, (8, 8), 1, 8, dtype="mixed_bfloat16")
    layer = network.get_layer("noise_embedding")
    assert layer.compute_dtype == "float32"
    near = np.asarray(layer(np.float32([[[[0.5]]], [[[0.5001]]]])))
    assert np.abs(near[0] - near[1]).max() > 0.1  # equal in bfloat16


def test_blocks_have_the_documented_shapes():
    x, skips = keras.Input((16, 16, 8)), []
    assert ResidualBlock(8)(x).shape == (None, 16, 16, 8)
    assert ResidualBlock(12)(x).shape == (None, 16, 16, 12)
    down = DownBlock(12, 3)([x, skips])
    assert down.shape == (None, 8, 8, 12) and [s.shape for s in skips] == [(None, 16, 16, 12)] * 3
    assert UpBlock(10, 3)([down, skips]).shape == (None, 16, 16, 10) and not skips


@pytest.mark.parametrize("dtype", ["float32", "mixed_bfloat16"])
def test_an_untrained_network_predicts_zero_and_keeps_input_output_and_weights_in_float32(dtype):
    network = build_unet(16, (8, 12, 16), 2, 8, dtype=dtype)
    noisy = np.random.default_rng(0).normal(size=(3, 16, 16, 3)).astype("float32")
    variances = np.full((3, 1, 1, 1), 0.5, "float32")
    pred_noises = network({"noisy_images": noisy, "noise_variances": variances})
    assert keras.backend.standardize_dtype(pred_noises.dtype) == "float32"
    np.testing.assert_array_equal(pred_noises, np.zeros_like(noisy))
    assert all(w.dtype == "float32" for w in network.weights)
    computed = {layer.compute_dtype for layer in network.layers}
    assert computed == {"float32", dtype.removeprefix("mixed_")}


def test_a_network_reloads_with_safe_mode_on(tmp_path):
    network = build_unet(16, (8, 12), 1, 8)
    network.layers[-1].kernel.assign(np.ones(network.layers[-1].kernel.shape))
    network.save(tmp_path / "unet.keras")
    again = keras.saving.load_model(tmp_path / "unet.keras", safe_mode=True)
    variances = np.full((1, 1, 1, 1), 0.3, "float32")
    inputs = {"noisy_images": np.ones((1, 16, 16, 3), "float32"), "noise_variances": variances}
    np.testing.assert_array_equal(network(inputs), again(inputs))
    assert not any(isinstance(layer, keras.layers.Lambda) for layer in network.layers)


def test_an_embedded_label_stands_beside_the_embedded_noise_variance():
    """The chapter's network, with as many more channels after its first layer."""
    plain, labelled = (build_unet(num_classes=number) for number in (0, 102))
    assert plain.count_params() == 1_953_507
    names = labelled.get_layer("label_embedding")
    assert names.count_params() == 103 * 32  # 102 names, and none
    # They enter the first residual block: 32 more channels for its two first convolutions.
    more = 32 * 32 + 9 * 32 * 32 + 2 * 32  # a 1x1, a 3x3, the statistics of a normalisation
    assert labelled.count_params() == plain.count_params() + names.count_params() + more
    (first,) = [layer for layer in labelled.layers if layer.name.startswith("concatenate")][:1]
    noises, label = (tensor.shape for tensor in first.input[1:])
    assert noises == label == (None, 64, 64, 32)


@pytest.mark.skipif(not ON_TENSORFLOW, reason="on other backends the layer is Keras's own")
@pytest.mark.parametrize("training", [True, False])
def test_fused_batch_normalization_agrees_with_keras_in_values_gradients_and_statistics(training):
    import tensorflow as tf

    rng = np.random.default_rng(0)
    images = tf.constant(3 * rng.normal(size=(2, 3, 3, 5)) + 2, "float32")
    weights = tf.constant(rng.normal(size=images.shape), "float32")
    layers = (keras.layers.BatchNormalization(center=False, scale=False), FusedBatchNormalization())
    results = []
    for layer in layers:
        layer.build(images.shape)
        layer.set_weights([np.arange(5.0), 1 + np.arange(5.0)])
        with tf.GradientTape() as tape:
            tape.watch(images)
            outputs = layer(images, training=training)
            total = tf.reduce_sum(weights * outputs)
        results.append([outputs, tape.gradient(total, images), *layer.get_weights()])
    for theirs, ours in zip(*results, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-5)
