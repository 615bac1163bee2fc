"""KID and FID as Keras metrics: they agree with `distances`, and Keras can save and use them."""

import keras
import numpy as np
import pytest
from conftest import ON_TENSORFLOW
from test_distances import kernel_mean_by_loops
from test_jax import needs_jax
from test_jax import run as run_on_jax

from diffusion.evaluation.distances import frechet_distance, kernel_distance
from diffusion.evaluation.metrics import FID, KID


@keras.saving.register_keras_serializable(package="tests")
def colours(images):
    """An encoder without weights: the mean and the mean square of each colour, 6 features."""
    parts = [keras.ops.mean(images, axis=(1, 2)), keras.ops.mean(images**2, axis=(1, 2))]
    return keras.ops.concatenate(parts, axis=-1)


@pytest.fixture
def images():
    rng = np.random.default_rng(0)
    return rng.random((24, 8, 8, 3), "float32"), rng.random((20, 8, 8, 3), "float32") ** 2


@pytest.fixture
def network():
    keras.utils.set_random_seed(1)
    return keras.Sequential(
        [
            keras.Input((None, None, 3)),
            keras.layers.Conv2D(4, 3, activation="relu"),
            keras.layers.BatchNormalization(),
            keras.layers.GlobalAveragePooling2D(),
        ]
    )


def dimmer():
    """A model whose output is 0.8 times its input."""
    inputs = keras.Input((8, 8, 3))
    return keras.Model(inputs, keras.layers.Rescaling(0.8)(inputs))


def features(images):
    return np.asarray(colours(keras.ops.convert_to_tensor(images)))


def test_kid_over_batches_is_their_mean_and_has_a_standard_error(images):
    metric, estimates = KID(colours), []
    for start in (0, 8, 16):
        batch = [each[start : start + 8] for each in images]
        metric.update_state(*batch)
        estimates.append(kernel_mean_by_loops(*map(features, batch)))
    np.testing.assert_allclose(metric.result(), np.mean(estimates), rtol=1e-3)
    expected = np.std(estimates, ddof=1) / np.sqrt(3)
    np.testing.assert_allclose(metric.standard_error(), expected, rtol=1e-2)
    before = float(metric.result())
    metric.update_state(images[0][:1], images[1][:1])  # a batch of one image is skipped
    assert float(metric.result()) == before


@pytest.mark.parametrize("metric", [KID(colours, over="sample"), FID(colours)])
def test_over_the_sample_batches_make_no_difference_and_a_reset_forgets_all(metric, images):
    real, generated = images
    distance = frechet_distance if isinstance(metric, FID) else lambda *r: kernel_distance(*r)[0]
    metric.update_state(generated[:9], real[:9])
    metric.reset_state()
    for batch in (slice(0, 11), slice(11, None)):
        metric.update_state(real[batch], generated[batch])
    expected = distance(features(real), features(generated))
    np.testing.assert_allclose(metric.result(), expected, rtol=1e-5)
    metric.reset_state()
    with pytest.raises(ValueError, match="got 0 and 0"):
        metric.result()


def test_kid_over_batches_is_nan_after_a_reset(images):
    metric = KID(colours)
    metric.update_state(*images)
    assert np.isfinite(metric.result())
    metric.reset_state()
    assert np.isnan(metric.result()) and np.isnan(metric.standard_error())


def test_uint8_images_give_the_result_of_float_ones(images):
    in_bytes = [np.round(each * 255).astype("uint8") for each in images]
    results = []
    for pair in (in_bytes, [each.astype("float32") / 255 for each in in_bytes]):
        metric = FID(colours)
        metric.update_state(*pair)
        results.append(float(metric.result()))
    np.testing.assert_allclose(*results, rtol=1e-6)


@pytest.mark.parametrize(
    ("make", "options"),
    [
        (lambda encoder: KID(encoder), {}),
        (lambda encoder: KID(encoder, over="sample"), {"run_eagerly": True}),
        (lambda encoder: FID(encoder), {"run_eagerly": True}),
    ],
)
def test_a_model_can_be_compiled_with_either_metric(make, options, images, network):
    if options and not ON_TENSORFLOW:
        pytest.skip("only TensorFlow runs a step eagerly")
    real = images[0][:21]  # in batches of 10, 10 and 1
    model = dimmer()
    model.compile(loss="mse", metrics=[make(network)], **options)
    by_hand = make(network)
    for start in range(0, 21, 10):
        by_hand.update_state(real[start : start + 10], 0.8 * real[start : start + 10])
    for _ in range(2):  # a second time: nothing may remain of the first
        _, found = model.evaluate(real, real, batch_size=10, verbose=0)
        np.testing.assert_allclose(found, by_hand.result(), rtol=2e-3)


def test_a_metric_that_keeps_features_refuses_a_compiled_step(images, network):
    model = dimmer()
    model.compile(loss="mse", metrics=[FID(network)], jit_compile=not ON_TENSORFLOW)
    with pytest.raises(RuntimeError, match="run_eagerly=True"):
        model.evaluate(images[0], images[0], verbose=0)


@pytest.mark.parametrize("encoder", ["network", "colours"])
def test_a_metric_survives_its_config_weights_included(encoder, images, network):
    encoder = network if encoder == "network" else colours
    network.layers[1].set_weights([np.full(4, value) for value in (2.0, 0.5, 0.1, 3.0)])
    for metric in (KID(encoder, name="mine"), KID(encoder, "sample", groups=4), FID(encoder)):
        config = keras.saving.serialize_keras_object(metric)
        copy = keras.saving.deserialize_keras_object(config)
        assert copy.name == metric.name and copy.get_config().keys() == metric.get_config().keys()
        metric.update_state(*images)
        copy.update_state(*images)
        np.testing.assert_allclose(copy.result(), metric.result(), rtol=1e-5)
        if isinstance(metric, KID):
            assert (copy.over, copy.groups) == (metric.over, metric.groups)


def test_wrong_arguments_are_refused(images):
    with pytest.raises(ValueError, match="'epochs'"):
        KID(colours, over="epochs")
    with pytest.raises(ValueError, match="got 3"):
        FID(3)
    with pytest.raises(ValueError, match="int32"):
        FID(colours).update_state(np.zeros((4, 8, 8, 3), "int32"), images[1])
    with pytest.raises(ValueError, match="sample weights"):
        KID(colours).update_state(*images, sample_weight=np.ones(24))


@pytest.mark.slow
@needs_jax
def test_metrics_and_the_shipped_encoder_work_without_tensorflow(tmp_path):
    shipped = "test_the_encoder_that_ships_is_small_and_accepts_any_size"
    files = __file__, f"tests/evaluation/test_encoder.py::{shipped}"
    run_on_jax(tmp_path, "-m", "pytest", "-m", "not slow", *files)
