"""Encoders: the one that ships, those that are trained, and Inception where it is available."""

import keras
import numpy as np
import pytest
from PIL import Image

from diffusion.data.flowers import read_image
from diffusion.evaluation.classifier import (
    accuracy,
    augment,
    build_classifier,
    save_classifier,
    train_classifier,
)
from diffusion.evaluation.encoder import SHIPPED, choose_encoder, encode, inception, load_encoder


def red_and_blue(seed, count=64):
    """Noisy images of two species, one red and one blue."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 2, count)
    images = rng.integers(0, 120, (count, 16, 16, 3))
    images[np.arange(count), :, :, labels * 2] += 100
    return images.astype("uint8"), labels


@pytest.fixture(scope="module")
def trained_on_colours():
    return train_classifier(
        *red_and_blue(0), 2, epochs=6, batch_size=16, image_size=16, widths=(8, 8), verbose=0
    )


@pytest.mark.slow
def test_a_classifier_learns_what_tells_species_apart(trained_on_colours):
    assert accuracy(trained_on_colours, *red_and_blue(1)) > 0.9


@pytest.mark.slow
def test_a_saved_classifier_is_loaded_as_an_encoder_with_its_record(trained_on_colours, tmp_path):
    path = tmp_path / "colours.keras"
    save_classifier(trained_on_colours, path, {"data": "colours"})
    assert path.with_suffix(".json").is_file()
    loaded = load_encoder(path)
    images, _ = red_and_blue(2)
    found = encode(loaded, images, batch_size=20)
    assert found.shape == (64, 8) and found.dtype == np.float32
    features = trained_on_colours.get_layer("features").output
    before = keras.Model(trained_on_colours.input, features)(images / np.float32(255))
    np.testing.assert_allclose(found, before, rtol=1e-2, atol=1e-2)  # stored in float16
    assert not loaded.trainable_variables
    with pytest.raises(ValueError, match=r"\.keras file.*model\.h5"):
        save_classifier(trained_on_colours, tmp_path / "model.h5", {})
    assert not (tmp_path / "model.h5").exists()


@pytest.mark.slow
def test_calling_a_classifier_does_not_train_it(trained_on_colours):
    images, _ = red_and_blue(3)
    images = images.astype("float32") / 255
    expected = trained_on_colours.predict(images, verbose=0)
    for _ in range(2):  # Keras's resizing would update batch normalization
        np.testing.assert_allclose(trained_on_colours(images), expected, rtol=1e-4, atol=1e-5)


def test_half_of_the_augmented_images_are_flipped_and_each_is_another_crop_of_the_same_size():
    ramp = np.broadcast_to(np.linspace(0, 255, 32)[None, :, None], (32, 32, 3)).astype("uint8")
    copies = [augment(ramp, np.random.default_rng(seed)) for seed in range(200)]
    np.testing.assert_array_equal(copies[1], augment(ramp, np.random.default_rng(1)))
    for copy in copies:
        assert copy.shape == ramp.shape and copy.dtype == np.float32
        assert copy.min() >= 0 and copy.max() <= 1
    rises = [copy[:, -1].mean() - copy[:, 0].mean() for copy in copies]
    assert 70 < sum(rise < 0 for rise in rises) < 130
    assert min(map(abs, rises)) > 0.35 and np.std(np.abs(rises)) > 0.05


def test_the_encoder_that_ships_is_small_and_accepts_any_size():
    assert SHIPPED.stat().st_size < 2_000_000
    shipped = load_encoder()
    smooth = np.linspace(0, 1, 64, dtype="float32")
    image = np.stack(np.broadcast_arrays(smooth[:, None], smooth[None, :], 0.5), axis=-1)
    large = np.asarray(image, "float32")[None]
    small = large.reshape(1, 32, 2, 32, 2, 3).mean(axis=(2, 4))
    found = [encode(shipped, images)[0] for images in (large, small)]
    assert found[0].shape == (128,)
    assert np.linalg.norm(found[0] - found[1]) < 0.1 * np.linalg.norm(found[0])


def test_the_encoder_that_ships_classifies_flowers_it_was_not_trained_on(real_flowers_dir):
    folder = real_flowers_dir / "dataset" / "valid"
    paths = [next(iter(sorted((folder / str(label + 1)).iterdir()))) for label in range(102)]
    images = np.stack([read_image(path, 64) for path in paths])
    classifier = keras.saving.load_model(SHIPPED, compile=False)
    assert accuracy(classifier, images, np.arange(102)) > 0.5  # by chance 1 in 102


def test_what_is_no_encoder_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"none\.keras"):
        load_encoder(tmp_path / "none.keras")
    keras.Sequential([keras.Input((2,)), keras.layers.ReLU()]).save(tmp_path / "relu.keras")
    with pytest.raises(ValueError, match=r"relu\.keras is not an encoder"):
        load_encoder(tmp_path / "relu.keras")
    with pytest.raises(ValueError, match="'vgg'"):
        choose_encoder("vgg")


def test_features_must_be_finite_rows():
    images = np.zeros((5, 8, 8, 3), "float32")
    with pytest.raises(ValueError, match=r"got \(5, 8, 8, 3\) for 5"):
        encode(lambda images: images, images)
    with pytest.raises(ValueError, match="not finite"):
        encode(lambda images: images[:, 0, 0] + np.inf, images)


def test_progress_counts_images():
    done = []
    encode(lambda images: images[:, 0, 0], np.zeros((10, 8, 8, 3), "f4"), 4, done.append)
    assert done == [4, 4, 2]


def test_inception_receives_what_it_was_trained_on(monkeypatch):
    """Images in [0, 1] of any size become 75x75 in [-1, 1], bilinear as in Pillow."""
    received = {}

    def stand_in(**options):
        received.update(options)
        inputs = keras.Input(options["input_shape"])
        return keras.Model(inputs, keras.layers.Flatten()(inputs))

    monkeypatch.setattr(keras.applications, "InceptionV3", stand_in)
    image = np.random.default_rng(0).random((30, 40, 3)).astype("float32")
    resized = encode(inception(75, None), image[None]).reshape(75, 75, 3)
    given = [received[name] for name in ("include_top", "pooling", "weights")]
    assert given == [False, "avg", None]
    for channel in range(3):
        expected = Image.fromarray(image[..., channel]).resize((75, 75), Image.BILINEAR)
        np.testing.assert_allclose(resized[..., channel], 2 * np.asarray(expected) - 1, atol=2e-3)


@pytest.mark.slow
def test_inception_has_2048_features_and_is_not_trained():
    encoder = inception(75, weights=None)
    assert encoder.output_shape == (None, 2048) and not encoder.trainable_variables


def test_where_inception_is_not_available_one_line_says_what_to_do(monkeypatch, tmp_path):
    def refuse(**options):
        raise Exception("URL fetch failure on https://somewhere:\nno network")

    monkeypatch.setattr(keras.applications, "InceptionV3", refuse)
    with pytest.raises(RuntimeError, match=r"URL fetch failure.*flowers") as got:
        inception(75)
    assert "\n" not in str(got.value)
    with pytest.raises(FileNotFoundError, match=r"none\.h5"):
        inception(75, tmp_path / "none.h5")
    with pytest.raises(ValueError, match="got 64"):
        inception(64)


@pytest.mark.parametrize(
    ("options", "words"),
    [({"epochs": 0}, "epochs.*got 0"), ({"batch_size": 65}, "64 .*batch of 65")],
)
def test_training_with_wrong_numbers_is_refused(options, words):
    with pytest.raises(ValueError, match=words):
        train_classifier(*red_and_blue(0), 2, **options)


def test_a_classifier_computes_scores_in_float32_whatever_its_precision():
    model = build_classifier(5, 16, (8,), dtype="mixed_bfloat16")
    assert model.output.dtype == "float32" and model.output_shape == (None, 5)
