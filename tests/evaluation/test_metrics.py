"""Distances between sets of pictures: against loops by hand, moments by hand, and simulation."""

import importlib.util
import itertools

import keras
import numpy as np
import pytest
from conftest import ON_TENSORFLOW
from scipy.linalg import sqrtm
from test_jax import run as run_on_jax

from diffusion.evaluation.distances import (
    frechet_distance,
    gaussian_distance,
    kernel_distance,
    memorisation,
    nearest,
    precision_and_recall,
)
from diffusion.evaluation.metrics import FID, KID


@keras.saving.register_keras_serializable(package="tests")
def colours(images):
    """An encoder without weights: the mean and the mean square of each colour, 6 features."""
    parts = [keras.ops.mean(images, axis=(1, 2)), keras.ops.mean(images**2, axis=(1, 2))]
    return keras.ops.concatenate(parts, axis=-1)


@pytest.fixture
def pictures():
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


def samples(seed, count, features=2, shift=0.0, scale=1.0):
    return shift + scale * np.random.default_rng(seed).standard_normal((count, features))


# --- KID ---


def kernel(x, y):
    return (sum(a * b for a, b in zip(x, y, strict=True)) / len(x) + 1) ** 3


def by_loops(real, generated):
    """The mean of the kernel over ordered pairs of different rows, twice, less twice between."""
    within = [
        np.mean([kernel(x, y) for x, y in itertools.permutations(rows, 2)])
        for rows in (real, generated)
    ]
    return sum(within) - 2 * np.mean([kernel(x, y) for x in real for y in generated])


@pytest.mark.parametrize("groups", [1, 3, 10])
def test_kernel_distance_is_what_loops_over_pairs_give(groups):
    real, generated = samples(0, 7, 3), samples(1, 5, 3, shift=0.5)
    estimate, _ = kernel_distance(real, generated, groups)
    np.testing.assert_allclose(estimate, by_loops(real, generated), rtol=1e-12)


def test_kernel_distance_of_one_distribution_is_zero_in_the_mean():
    estimates, with_diagonals = [], []
    for i in range(600):
        real, generated = samples([i, 0], 12), samples([i, 1], 15)
        estimates.append(kernel_distance(real, generated, groups=1)[0])
        between = (real @ generated.T / 2 + 1) ** 3
        within = sum(((x @ x.T / 2 + 1) ** 3).mean() for x in (real, generated))
        with_diagonals.append(within - 2 * between.mean())
    error = np.std(estimates) / np.sqrt(len(estimates))
    assert abs(np.mean(estimates)) < 4 * error
    assert min(estimates) < 0
    assert np.mean(with_diagonals) > 20 * error  # the test can tell the one from the other


def test_kernel_distance_of_two_gaussians_is_the_populations_in_the_mean():
    def moments(mean, deviation):
        return mean, mean**2 + deviation**2, mean**3 + 3 * mean * deviation**2

    def expected_kernel(a, b):  # of E (x y + 1)^3 for independent numbers x and y
        return a[2] * b[2] + 3 * a[1] * b[1] + 3 * a[0] * b[0] + 1

    p, q = moments(0.3, 1.0), moments(-0.2, 0.7)
    population = expected_kernel(p, p) + expected_kernel(q, q) - 2 * expected_kernel(p, q)
    estimates = [
        kernel_distance(
            samples([i, 0], 20, 1, 0.3, 1.0), samples([i, 1], 30, 1, -0.2, 0.7), groups=1
        )[0]
        for i in range(2000)
    ]
    error = np.std(estimates) / np.sqrt(len(estimates))
    assert abs(np.mean(estimates) - population) < 4 * error < population / 2


def test_the_standard_error_is_the_spread_of_the_estimate():
    found = np.array(
        [kernel_distance(samples([i, 0], 80), samples([i, 1], 60, 2, 0.7)) for i in range(300)]
    )
    estimates, errors = found.T
    assert 0.85 < np.sqrt(np.mean(errors**2)) / np.std(estimates) < 1.25


def test_the_standard_error_does_not_depend_on_pictures_lying_by_kind():
    rows = np.concatenate([samples(i, 40, 2, shift=i) for i in range(5)])
    _, sorted_error = kernel_distance(rows, samples(9, 200, 2, 2.0))
    mixed = np.random.default_rng(1).permutation(rows)
    _, mixed_error = kernel_distance(mixed, samples(9, 200, 2, 2.0))
    assert 1 / 2.5 < sorted_error / mixed_error < 2.5


def test_where_too_few_are_left_the_standard_error_is_unknown():
    estimate, error = kernel_distance(samples(0, 2), samples(1, 2))
    assert np.isfinite(estimate) and np.isnan(error)


# --- FID ---


def test_gaussian_distance_is_the_closed_form_where_covariances_are_diagonal():
    rng = np.random.default_rng(0)
    (mean, other), (deviations, others) = rng.normal(size=(2, 5)), rng.random((2, 5))
    expected = ((mean - other) ** 2).sum() + ((deviations - others) ** 2).sum()
    found = gaussian_distance(mean, np.diag(deviations**2), other, np.diag(others**2))
    np.testing.assert_allclose(found, expected, rtol=1e-12)


def test_gaussian_distance_is_what_a_general_matrix_root_gives():
    rng = np.random.default_rng(1)
    a, b = rng.normal(size=(2, 12, 6))
    covariance, other = a.T @ a, b.T @ b
    expected = 4 + np.trace(covariance + other - 2 * sqrtm(covariance @ other).real)
    found = gaussian_distance(np.zeros(6), covariance, np.r_[2.0, np.zeros(5)], other)
    np.testing.assert_allclose(found, expected, rtol=1e-10)


def test_frechet_distance_approaches_that_of_the_gaussians_drawn_from():
    mixing = np.array([[1.0, 0.5], [0.0, 0.8]])
    real, generated = samples(0, 200_000), samples(1, 200_000, shift=0.3) @ mixing
    shift, covariance = np.array([0.3, 0.3]) @ mixing, mixing.T @ mixing
    # The root of a 2x2 matrix C has trace sqrt(tr C + 2 sqrt(det C)).
    root = np.sqrt(np.trace(covariance) + 2 * np.sqrt(np.linalg.det(covariance)))
    expected = shift @ shift + 2 + np.trace(covariance) - 2 * root
    np.testing.assert_allclose(frechet_distance(real, generated), expected, rtol=0.03)


def test_frechet_distance_holds_for_fewer_pictures_than_features():
    real, generated = samples(0, 9, 40), samples(1, 7, 40, 0.2)
    assert frechet_distance(real, real) < 1e-9
    # tr (C C')^(1/2) without any root: the singular values of the centred rows' products.
    centred = real - real.mean(axis=0), generated - generated.mean(axis=0)
    overlap = np.linalg.svd(centred[0] @ centred[1].T, compute_uv=False).sum() / np.sqrt(8 * 6)
    traces = sum((rows**2).sum() / (len(rows) - 1) for rows in centred)
    shift = real.mean(axis=0) - generated.mean(axis=0)
    expected = shift @ shift + traces - 2 * overlap
    np.testing.assert_allclose(frechet_distance(real, generated), expected, rtol=1e-6)


def test_frechet_distance_of_one_distribution_is_biased_and_half_so_with_twice_the_pictures():
    def mean_of(count):
        pairs = ((samples([i, 0], count, 4), samples([i, 1], count, 4)) for i in range(150))
        return np.mean([frechet_distance(*pair) for pair in pairs])

    few, many = mean_of(50), mean_of(100)
    assert many > 0.05 and 1.7 < few / many < 2.4


@pytest.mark.parametrize("distance", [kernel_distance, frechet_distance])
def test_what_cannot_be_compared_is_named(distance):
    with pytest.raises(ValueError, match=r"2 pictures or more on each side, got 1 and 5"):
        distance(samples(0, 1), samples(1, 5))
    with pytest.raises(ValueError, match=r"got \(5, 2\) and \(5, 3\)"):
        distance(samples(0, 5), samples(1, 5, 3))


# --- precision, recall, nearest neighbours ---


def test_precision_and_recall_of_toys_are_known():
    grid = np.array([[x, y] for x in range(4) for y in range(4)], float)
    both = np.concatenate([grid, grid + 100])  # two clusters, of which one is drawn
    assert precision_and_recall(both, grid + 0.1) == (1.0, 0.5)
    assert precision_and_recall(grid, both) == (0.5, 1.0)
    assert precision_and_recall(grid, grid + 100) == (0.0, 0.0)
    assert precision_and_recall(grid, grid) == (1.0, 1.0)


@pytest.mark.parametrize("neighbours", [1, 3])
def test_precision_and_recall_are_what_loops_give(neighbours):
    def share(centres, rows):
        inside = 0
        for row in rows:
            for i, centre in enumerate(centres):
                others = [np.linalg.norm(centre - o) for j, o in enumerate(centres) if j != i]
                if np.linalg.norm(row - centre) <= sorted(others)[neighbours - 1]:
                    inside += 1
                    break
        return inside / len(rows)

    real, generated = samples(0, 30), samples(1, 25, shift=1.5, scale=0.6)
    expected = share(real, generated), share(generated, real)
    assert precision_and_recall(real, generated, neighbours) == expected
    assert 0 < expected[0] < 1 and 0 < expected[1] < 1


def test_precision_needs_more_pictures_than_neighbours():
    with pytest.raises(ValueError, match=r"pictures of each side \(3 and 9\), got 3"):
        precision_and_recall(samples(0, 3), samples(1, 9))


@pytest.mark.parametrize("block", [1, 7, 1000])
def test_nearest_is_what_loops_give_however_the_references_are_read(block):
    queries, references = samples(0, 6, 5), samples(1, 40, 5)
    rows, distances = nearest(queries, references, block)
    for query, row, distance in zip(queries, rows, distances, strict=True):
        each = [np.linalg.norm(query - reference) for reference in references]
        assert row == np.argmin(each)
        np.testing.assert_allclose(distance, min(each), rtol=1e-12)


def test_a_copy_is_found_in_bytes_though_it_was_drawn_in_floats():
    training = np.random.default_rng(0).integers(0, 256, (30, 8, 8, 3)).astype("uint8")
    rows, distances = nearest(training[[4, 21]] / 255, training, block=10)
    assert rows.tolist() == [4, 21] and distances.max() < 1e-12
    with pytest.raises(ValueError, match=r"\(8, 8, 3\) among 30 of \(4, 4, 3\)"):
        nearest(training, training[:, :4, :4])


def test_memorisation_is_near_0_for_copies_and_near_1_for_what_is_new():
    training, withheld, drawn = (samples(seed, 200, 8) for seed in range(3))
    drawn[:50] = training[100:150]
    rows, ratios = memorisation(drawn, training, withheld)
    assert rows[:50].tolist() == list(range(100, 150)) and ratios[:50].max() == 0
    assert 0.9 < np.median(ratios[50:]) < 1.1


# --- as Keras metrics ---


def features(images):
    return np.asarray(colours(keras.ops.convert_to_tensor(images)))


def test_kid_over_batches_is_the_mean_of_the_batches_and_tells_its_standard_error(pictures):
    real, generated = pictures
    metric = KID(colours)
    estimates = []
    for start in (0, 8, 16):
        batch = slice(start, start + 8)
        metric.update_state(real[batch], generated[batch])
        estimates.append(by_loops(features(real[batch]), features(generated[batch])))
    np.testing.assert_allclose(metric.result(), np.mean(estimates), rtol=1e-3)
    expected = np.std(estimates, ddof=1) / np.sqrt(3)
    np.testing.assert_allclose(metric.standard_error(), expected, rtol=1e-2)


def test_a_batch_of_one_picture_is_left_out_of_the_mean(pictures):
    metric = KID(colours)
    metric.update_state(*pictures)
    before = float(metric.result())
    metric.update_state(pictures[0][:1], pictures[1][:1])
    assert float(metric.result()) == before


@pytest.mark.parametrize("metric", [KID(colours, over="sample"), FID(colours)])
def test_over_the_sample_batches_make_no_difference_and_nothing_is_left_after_a_reset(
    metric, pictures
):
    real, generated = pictures
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


def test_kid_over_batches_knows_nothing_after_a_reset(pictures):
    metric = KID(colours)
    assert np.isnan(metric.result())
    metric.update_state(*pictures)
    assert np.isfinite(metric.result())
    metric.reset_state()
    assert np.isnan(metric.result()) and np.isnan(metric.standard_error())


def test_bytes_are_the_same_pictures_as_floats(pictures):
    bytes_ = [np.round(images * 255).astype("uint8") for images in pictures]
    results = []
    for images in (bytes_, [images.astype("float32") / 255 for images in bytes_]):
        metric = FID(colours)
        metric.update_state(*images)
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
def test_a_model_is_evaluated_by_it_as_by_any_metric(make, options, pictures, network):
    if options and not ON_TENSORFLOW:
        pytest.skip("only TensorFlow runs a step eagerly")
    real = pictures[0][:21]  # in batches of 10, 10 and 1
    inputs = keras.Input((8, 8, 3))
    model = keras.Model(inputs, keras.layers.Rescaling(0.8)(inputs))
    model.compile(loss="mse", metrics=[make(network)], **options)
    by_hand = make(network)
    for start in range(0, 21, 10):
        by_hand.update_state(real[start : start + 10], 0.8 * real[start : start + 10])
    for _ in range(2):  # and once more: nothing may be left of the first time
        _, found = model.evaluate(real, real, batch_size=10, verbose=0)
        np.testing.assert_allclose(found, by_hand.result(), rtol=2e-3)


@pytest.mark.skipif(not ON_TENSORFLOW, reason="under JAX the words are the same, elsewhere tested")
def test_a_metric_that_keeps_features_says_so_in_a_compiled_step(pictures, network):
    inputs = keras.Input((8, 8, 3))
    model = keras.Model(inputs, keras.layers.Rescaling(0.8)(inputs))
    model.compile(loss="mse", metrics=[FID(network)], jit_compile=False)
    with pytest.raises(RuntimeError, match=r"fid keeps all features.*run_eagerly=True"):
        model.evaluate(pictures[0], pictures[0], verbose=0)


@pytest.mark.parametrize("encoder", ["network", "colours"])
def test_a_metric_is_the_same_after_its_config_weights_and_all(encoder, pictures, network):
    encoder = network if encoder == "network" else colours
    network.layers[1].set_weights([np.full(4, value) for value in (2.0, 0.5, 0.1, 3.0)])
    for metric in (KID(encoder, name="mine"), KID(encoder, "sample", groups=4), FID(encoder)):
        config = keras.saving.serialize_keras_object(metric)
        copy = keras.saving.deserialize_keras_object(config)
        assert copy.name == metric.name and copy.get_config().keys() == metric.get_config().keys()
        metric.update_state(*pictures)
        copy.update_state(*pictures)
        np.testing.assert_allclose(copy.result(), metric.result(), rtol=1e-5)
        if isinstance(metric, KID):
            assert (copy.over, copy.groups) == (metric.over, metric.groups)


def test_a_model_saved_with_its_metric_evaluates_alike(pictures, network, tmp_path):
    inputs = keras.Input((8, 8, 3))
    model = keras.Model(inputs, keras.layers.Rescaling(0.8)(inputs))
    model.compile(loss="mse", metrics=[KID(network)])
    before = model.evaluate(pictures[0], pictures[0], batch_size=8, verbose=0)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    after = loaded.evaluate(pictures[0], pictures[0], batch_size=8, verbose=0)
    np.testing.assert_allclose(after, before, rtol=1e-4)


def test_a_mistake_is_named(pictures):
    with pytest.raises(ValueError, match="no KID over 'epochs': choose one of batches, sample"):
        KID(colours, over="epochs")
    with pytest.raises(ValueError, match="encoder must be a function or a Keras model, got 3"):
        FID(3)
    with pytest.raises(ValueError, match="uint8, or float"):
        FID(colours).update_state(np.zeros((4, 8, 8, 3), "int32"), pictures[1])
    with pytest.raises(ValueError, match="without sample weights"):
        KID(colours).update_state(*pictures, sample_weight=np.ones(24))


ON_JAX = """
import keras
import numpy as np
from diffusion.evaluation.distances import frechet_distance, kernel_distance
from diffusion.evaluation.encoder import encode, load_encoder
from diffusion.evaluation.metrics import FID, KID

def encoder(images):
    return keras.ops.concatenate([images[:, 1, 2], images[:, 3, 3]], axis=-1)

real = np.random.default_rng(0).random((20, 16, 16, 3), "float32")
inputs = keras.Input((16, 16, 3))
squares = keras.Model(inputs, keras.layers.Multiply()([inputs, inputs]))
squares.compile(loss="mse", metrics=[KID(encoder)])
a, b = encode(encoder, real), encode(encoder, real**2)
halves = slice(0, 10), slice(10, 20)
_, found = squares.evaluate(real, real, batch_size=10, verbose=0)
expected = np.mean([kernel_distance(a[rows], b[rows])[0] for rows in halves])
np.testing.assert_allclose(found, expected, rtol=1e-3)
for metric, expected in (
    (KID(encoder, over="sample"), kernel_distance(a, b)[0]),
    (FID(encoder), frechet_distance(a, b)),
):
    for rows in halves:
        metric.update_state(real[rows], real[rows] ** 2)
    np.testing.assert_allclose(metric.result(), expected, rtol=1e-4)
assert encode(load_encoder(), real).shape == (20, 128)
squares.compile(loss="mse", metrics=[FID(encoder)])
try:
    squares.evaluate(real, real, verbose=0)
except RuntimeError as error:
    assert "fid keeps all features" in str(error)
    print("agreed")
"""


@pytest.mark.skipif(importlib.util.find_spec("jax") is None, reason="JAX is not installed")
def test_metrics_and_the_shipped_encoder_work_without_tensorflow(tmp_path):
    assert run_on_jax(tmp_path, "-c", ON_JAX) == "agreed\n"
