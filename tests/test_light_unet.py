"""The light U-Net's parts agree with MobileNet and with the notes; `test_networks` has the rest."""

import keras
import numpy as np
import pytest
from keras import layers

from diffusion.evaluation.costs import layer_costs, multiply_adds
from diffusion.light_unet import (
    DepthwiseBlock,
    build_light_unet,
    mobilenet_encoder,
    unet_decoder,
)

LEVELS = [f"conv_pw_{number}_relu" for number in (1, 3, 5, 11, 13)]  # f1 to f5 in Keras's MobileNet


@pytest.mark.parametrize(("alpha", "depth_multiplier"), [(0.25, 1), (0.5, 2)])
def test_the_encoder_is_mobilenet_in_its_levels_and_parameters(alpha, depth_multiplier):
    keras.utils.set_random_seed(0)
    size = 32, 64, 3
    options = {"alpha": alpha, "depth_multiplier": depth_multiplier}
    theirs = keras.applications.MobileNet(size, weights=None, include_top=False, **options)
    images = keras.Input(size)
    ours = keras.Model(images, mobilenet_encoder(images, **options))
    assert ours.count_params() == theirs.count_params()
    assert multiply_adds(ours) == multiply_adds(theirs)
    random = np.random.default_rng(0)
    values = [3 * value + 0.1 * random.normal(size=value.shape) for value in theirs.get_weights()]
    theirs.set_weights(values)
    ours.set_weights(values)
    batch = random.normal(size=(2, *size)).astype("float32")
    expected = keras.Model(theirs.inputs, [theirs.get_layer(name).output for name in LEVELS])
    # in training: the features keep their size, and the norms' statistics follow
    levels = ours(batch, training=True), expected([batch], training=True)
    for level, like in zip(*levels, strict=True):
        assert np.asarray(level).std() > 0.1
        np.testing.assert_allclose(level, like, rtol=1e-4, atol=1e-4)
    for value, like in zip(ours.get_weights(), theirs.get_weights(), strict=True):
        np.testing.assert_allclose(value, like, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("height", "width"), [(224, 224), (416, 608)])
def test_the_levels_have_the_shapes_of_the_notes(height, width):
    levels = mobilenet_encoder(keras.Input((height, width, 3)))
    assert [level.shape[1:] for level in levels] == [
        (height // 2**number, width // 2**number, 32 * 2**number) for number in (1, 2, 3, 4, 5)
    ]


def test_the_decoder_has_the_shapes_of_the_notes_and_leaves_f5_out():
    images = keras.Input((416, 416, 3))
    x = unet_decoder(mobilenet_encoder(images)[:4])
    network = keras.Model(images, layers.Conv2D(7, 3, padding="same")(x))
    convolutions = [network.get_layer(f"up_{number}").output.shape[1:] for number in (4, 3, 2, 1)]
    doubled, joined = (
        [network.get_layer(f"up_{number}_{part}").output.shape[1:] for number in (3, 2, 1)]
        for part in ("double", "join")
    )
    assert convolutions == [(26, 26, 512), (52, 52, 256), (104, 104, 128), (208, 208, 64)]
    assert doubled == [(52, 52, 512), (104, 104, 256), (208, 208, 128)]
    assert joined == [(52, 52, 768), (104, 104, 384), (208, 208, 192)]
    assert network.output_shape == (None, 208, 208, 7)
    assert not [layer.name for layer in network.layers if layer.name.startswith("f5")]
    assert unet_decoder(mobilenet_encoder(keras.Input((64, 96, 3)))).shape == (None, 32, 48, 64)


@pytest.mark.parametrize("depth_multiplier", [1, 3])
def test_a_block_takes_the_multiply_adds_of_a_filter_a_channel_and_a_mix(depth_multiplier):
    images, channels = keras.Input((8, 12, 5)), 5 * depth_multiplier
    outputs = DepthwiseBlock(7, "block", strides=2, depth_multiplier=depth_multiplier)(images)
    assert outputs.shape[1:] == (4, 6, 7)
    assert multiply_adds(keras.Model(images, outputs)) == 4 * 6 * (9 * channels + channels * 7)


def test_a_separable_decoder_is_the_decoder_but_for_its_convolutions():
    def decoders():
        for separable in (False, True):
            sizes = [(16 >> level, 16 >> level, 4 << level) for level in range(3)]
            levels = [keras.Input(size, name=f"level_{size[-1]}") for size in sizes]
            yield keras.Model(levels, unet_decoder(levels, separable=separable))

    plain, separable = decoders()
    assert [layer.name for layer in plain.layers] == [layer.name for layer in separable.layers]
    shapes = [[row.output_shape for row in layer_costs(each)] for each in (plain, separable)]
    assert shapes[0] == shapes[1]
    mixes = 16 * 16 * 16, 64 * 24 * 8, 256 * 12 * 4  # positions, channels in and out
    assert multiply_adds(plain) == 9 * sum(mixes)
    assert multiply_adds(separable) == sum(mixes) + 9 * (16 * 16 + 64 * 24 + 256 * 12)


def test_the_default_network_has_the_documented_size_and_depths():
    network = build_light_unet()
    assert network.count_params() == 6_944_730
    blocks = [layer.name for layer in network.layers if layer.name.endswith("depthwise")]
    assert [sum(f"f{level}_" in name for name in blocks) for level in (1, 2, 3, 4)] == [1, 2, 2, 6]
    shallow = build_light_unet(block_depth=1)
    blocks = [layer.name for layer in shallow.layers if layer.name.endswith("depthwise")]
    assert [sum(f"f{level}_" in name for name in blocks) for level in (1, 2, 3, 4)] == [1, 1, 1, 3]


def test_alpha_scales_all_widths():
    scaled = build_light_unet(16, (16, 32), 1, 8, alpha=0.5)
    narrow = build_light_unet(16, (8, 16), 1, 8)
    assert [each.shape for each in scaled.weights] == [each.shape for each in narrow.weights]


@pytest.mark.parametrize(
    ("size", "options", "words"),
    [
        (24, {}, r"a multiple of 16 for widths \(64, 128, 256, 512\) .*, got 24"),
        (16, {"widths": ()}, r"widths \(\) \(one or more"),
        (16, {"widths": (8, 16), "alpha": 0.2}, r"2 channels or more, got \(1, 3\) for alpha 0.2"),
        (16, {"widths": (8, 16), "embedding_dims": 7}, "7"),
    ],
)
def test_sizes_that_do_not_fit_are_refused_in_one_line(size, options, words):
    with pytest.raises(ValueError, match=words) as error:
        build_light_unet(size, **options)
    assert "\n" not in str(error.value)


def test_what_the_noise_level_says_of_the_images_reaches_the_output_directly():
    """With all else at zero, the output is a convolution of the images, scaled and shifted."""
    network = build_light_unet(16, (8, 16), 1, 8)
    kernel = np.zeros(network.get_layer("outputs").kernel.shape)
    kernel[1, 1, -3:] = np.eye(3)  # the images are the last channels
    network.get_layer("outputs").kernel.assign(kernel)
    random = np.random.default_rng(0)
    dense = network.get_layer("images_modulation").dense
    dense.kernel.assign(3 * random.normal(size=dense.kernel.shape))
    images = random.normal(size=(3, 16, 16, 3)).astype("float32")
    levels = np.float32([0.1, 0.1, 0.9]).reshape(-1, 1, 1, 1)
    outputs = np.asarray(network({"noisy_images": images, "noise_variances": levels}))
    fits = [np.polyfit(images[i, ..., 0].ravel(), outputs[i, ..., 0].ravel(), 1) for i in range(3)]
    for fit, image, output in zip(fits, images, outputs, strict=True):
        np.testing.assert_allclose(np.polyval(fit, image[..., 0]), output[..., 0], atol=1e-4)
    np.testing.assert_allclose(fits[0], fits[1], atol=1e-4)
    assert np.abs(fits[0] - fits[2]).max() > 0.1
