"""The classifier of noisy images: its gradient, its file, and what it does to generated images."""

import keras
import numpy as np
import pytest
from keras import ops
from processes import run_python

from diffusion.data.batches import Batches
from diffusion.data.flowers import read_image
from diffusion.model import DiffusionModel
from diffusion.noisy_classifier import (
    SHIPPED,
    NoisyClassifier,
    accuracy_by_noise,
    build_noisy_classifier,
    load_noisy_classifier,
)
from diffusion.samplers import SAMPLERS
from diffusion.schedules import CosineSchedule, OffsetCosineSchedule
from diffusion.support.backend import compile_with_xla
from diffusion.support.keras_files import load_keras_file, save_small
from diffusion.training.export import SHIPPED as SHIPPED_MODEL
from diffusion.unet import build_unet

NAMES = ("rose", "sunflower", "water lily")


@pytest.fixture(scope="module")
def classifier():
    """A small one with random weights everywhere, statistics of batch normalization included."""
    keras.utils.set_random_seed(0)
    made = NoisyClassifier(build_noisy_classifier(3, 16, (8, 8)), CosineSchedule(), NAMES)
    random = np.random.default_rng(0)
    for weight in made.network.weights:
        weight.assign(0.5 * random.normal(size=weight.shape))
        if "variance" in weight.path:
            weight.assign(random.uniform(0.5, 2, size=weight.shape))
    made.set_statistics([0.4, 0.5, 0.6], 0.06)
    return made


def noisy_images(count=4):
    random = np.random.default_rng(1)
    images = random.normal(size=(count, 16, 16, 3)).astype("float32")
    return images, random.uniform(0.1, 0.9, (count, 1, 1, 1)).astype("float32")


def log_probability(classifier, images, noise_rates, labels):
    """log p(label|noisy image) (B,), from the network itself, in float64 from its logits on."""
    given = {"noisy_images": images, "noise_variances": noise_rates**2}
    logits = np.float64(ops.convert_to_numpy(classifier.network(given, training=False)))
    logits -= logits.max(axis=-1, keepdims=True)
    rows = np.arange(len(logits))
    return logits[rows, labels] - np.log(np.exp(logits).sum(axis=-1))


def test_the_gradient_agrees_with_finite_differences(classifier):
    images, noise_rates = noisy_images()
    labels = np.array([0, 1, 2, 1])
    found = np.asarray(classifier.gradient(images, noise_rates, labels))
    assert found.shape == images.shape
    random, width = np.random.default_rng(2), 1e-2
    for _ in range(5):
        direction = random.normal(size=images.shape).astype("float32") / 16
        ends = [
            log_probability(classifier, images + sign * width * direction, noise_rates, labels)
            for sign in (1, -1)
        ]
        slopes = (ends[0] - ends[1]) / (2 * width)
        along = (found * direction).sum(axis=(1, 2, 3))
        np.testing.assert_allclose(along, slopes, rtol=0.02, atol=0.01 * abs(slopes).max())


def test_without_a_name_nothing_pulls(classifier):
    images, noise_rates = noisy_images(2)
    found = np.asarray(classifier.gradient(images, noise_rates, [3, 1]))
    assert not found[0].any() and np.abs(found[1]).max() > 1e-4


@pytest.mark.parametrize(
    ("size", "mean", "message"),
    [
        (8, [0.4, 0.5, 0.6], "for images of 16x16, the model's are 8x8: train one"),
        (16, 0.5, r"mean and variance \[0.4  0.06\], the model by \[0.5  0.06\]"),
    ],
)
def test_a_model_of_another_size_or_normalisation_is_refused(classifier, size, mean, message):
    model = DiffusionModel(build_unet(size, (8, 8), 1, 8), CosineSchedule())
    model.set_statistics(mean, 0.06)
    with pytest.raises(ValueError, match=message):
        model.generate(1, labels="rose", classifier=classifier)


def test_a_network_needs_a_logit_for_each_name():
    with pytest.raises(ValueError, match="4 logits for 3 names"):
        NoisyClassifier(build_noisy_classifier(4, 16, (8,)), CosineSchedule(), NAMES)


IN_A_NEW_PROCESS = """
import sys
import numpy as np
from diffusion.noisy_classifier import load_noisy_classifier
classifier = load_noisy_classifier(sys.argv[1])
given = np.load(sys.argv[2])
found = classifier.gradient(given["images"], given["noise_rates"], [0, 1, 2, 1])
np.savez(sys.argv[3], gradient=found, normalized=classifier.normalize(np.abs(given["images"])))
print(repr(classifier.schedule), ", ".join(classifier.class_names))
"""


def test_a_saved_classifier_has_the_same_gradient_in_a_new_process(classifier, tmp_path):
    images, noise_rates = noisy_images()
    np.savez(tmp_path / "given.npz", images=images, noise_rates=noise_rates)
    classifier.save(tmp_path / "saved.keras")
    paths = [tmp_path / name for name in ("saved.keras", "given.npz", "found.npz")]
    said = run_python(IN_A_NEW_PROCESS, *paths)
    assert said == f"{CosineSchedule()!r} rose, sunflower, water lily\n"
    found = np.load(tmp_path / "found.npz")
    gradient = np.asarray(classifier.gradient(images, noise_rates, [0, 1, 2, 1]))
    np.testing.assert_allclose(found["gradient"], gradient, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(found["normalized"], classifier.normalize(np.abs(images)), 1e-5)


def test_what_is_no_such_classifier_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"none\.keras: train one with scripts/train_noisy"):
        load_noisy_classifier(tmp_path / "none.keras")
    with pytest.raises(ValueError, match="holds a DiffusionModel, not a NoisyClassifier"):
        load_noisy_classifier(SHIPPED_MODEL)


@pytest.fixture(scope="module")
def trained_classifier(painted, trained):
    """A small one, trained for a few seconds on painted flowers, for the tiny model."""
    keras.utils.set_random_seed(0)
    names = painted.class_names
    made = NoisyClassifier(
        build_noisy_classifier(len(names), 16, (16, 32)), trained.model.schedule, names
    )
    mean, variance, _ = trained.model.normalizer.get_weights()
    made.set_statistics(mean, variance)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    made.compile(keras.optimizers.Adam(0.01), loss, jit_compile=compile_with_xla())
    batches = Batches(painted.images, 16, labels=painted.labels, repeats=8, flip=True)
    losses = made.fit(batches, epochs=6, shuffle=False, verbose=0).history["loss"]
    assert losses[-1] < 0.8 * losses[0]
    return made


def test_it_learns_species_and_is_surer_with_less_noise(trained_classifier, painted):
    found = accuracy_by_noise(trained_classifier, painted.images, painted.labels, (0.0, 0.5, 1.0))
    assert found[0.0] > 0.5 and found[0.5] > 0.4 and found[1.0] < 0.3


def test_guidance_makes_a_model_without_names_generate_what_was_asked_for(
    trained_classifier, trained, painted
):
    labels = [painted.class_names[label] for label in painted.labels[:12]]
    probabilities = []
    for scale in (0.0, 1.0, 4.0):
        images = trained.model.generate(
            labels=labels,
            classifier=trained_classifier,
            guidance=scale,
            seed=0,
            steps=8,
            sampler=SAMPLERS["dpm_solver"],
        )
        normalized = ops.convert_to_numpy(trained_classifier.normalize(images))
        noise_rates = np.zeros((12, 1, 1, 1), "float32")
        logs = log_probability(trained_classifier, normalized, noise_rates, painted.labels[:12])
        probabilities.append(np.exp(logs).mean())
    assert probabilities[2] > probabilities[1] > probabilities[0]
    assert probabilities[2] > 2.5 * probabilities[0]


def test_a_name_that_the_classifier_does_not_know_is_refused(trained_classifier, trained):
    with pytest.raises(ValueError, match=r"no flower named .*did you mean"):
        trained.model.generate(1, 1, labels="sunflour", classifier=trained_classifier)


def test_the_one_that_ships_is_small_and_made_for_the_model_that_ships():
    assert SHIPPED.stat().st_size < 2_000_000
    shipped, model = load_noisy_classifier(), load_keras_file(SHIPPED_MODEL, "a model")
    assert isinstance(model.schedule, OffsetCosineSchedule)
    assert repr(shipped.schedule) == repr(model.schedule)
    assert shipped.image_size == model.image_size and len(shipped.class_names) == 102
    images = np.random.default_rng(0).random((2, 64, 64, 3)).astype("float32")
    np.testing.assert_array_equal(shipped.normalize(images), model.normalize(images))


def test_the_one_that_ships_names_flowers_that_it_was_not_trained_on(real_flowers_dir):
    folder = real_flowers_dir / "dataset" / "valid"
    paths = [next(iter(sorted((folder / str(label + 1)).iterdir()))) for label in range(102)]
    images = np.stack([read_image(path, 64) for path in paths])
    found = accuracy_by_noise(load_noisy_classifier(), images, np.arange(102), (0.2, 0.6))
    assert found[0.2] > 0.3 and found[0.6] > 0.25  # by chance 1 in 102


def test_half_precision_in_the_file_hardly_changes_the_gradient(classifier, tmp_path):
    images, noise_rates = noisy_images()
    save_small(classifier, tmp_path / "small.keras", {})
    small = load_noisy_classifier(tmp_path / "small.keras")
    before, after = (
        np.asarray(each.gradient(images, noise_rates, [0, 1, 2, 1])) for each in (classifier, small)
    )
    assert np.abs(after - before).max() < 0.01 * np.abs(before).max()
