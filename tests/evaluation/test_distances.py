"""Distances between sets of features: against loops, closed forms, and simulation."""

import itertools

import numpy as np
import pytest
from scipy.linalg import sqrtm

from diffusion.evaluation.distances import (
    frechet_distance,
    gaussian_distance,
    kernel_distance,
    memorisation,
    nearest,
    precision_and_recall,
)


def samples(seed, count, features=2, shift=0.0, scale=1.0):
    return shift + scale * np.random.default_rng(seed).standard_normal((count, features))


# --- KID ---


def kernel(x, y):
    return (sum(a * b for a, b in zip(x, y, strict=True)) / len(x) + 1) ** 3


def kernel_mean_by_loops(real, generated):
    """The mean kernel over ordered pairs of distinct rows of each set, less twice that between."""
    within = [
        np.mean([kernel(x, y) for x, y in itertools.permutations(rows, 2)])
        for rows in (real, generated)
    ]
    return sum(within) - 2 * np.mean([kernel(x, y) for x in real for y in generated])


@pytest.mark.parametrize("groups", [1, 3, 10])
def test_kernel_distance_agrees_with_loops_over_pairs(groups):
    real, generated = samples(0, 7, 3), samples(1, 5, 3, shift=0.5)
    estimate, _ = kernel_distance(real, generated, groups)
    np.testing.assert_allclose(estimate, kernel_mean_by_loops(real, generated), rtol=1e-12)


def test_the_standard_error_is_the_spread_of_the_estimate():
    found = np.array(
        [kernel_distance(samples([i, 0], 80), samples([i, 1], 60, 2, 0.7)) for i in range(300)]
    )
    estimates, errors = found.T
    assert 0.85 < np.sqrt(np.mean(errors**2)) / np.std(estimates) < 1.25


def test_the_standard_error_does_not_depend_on_the_order_of_images():
    rows = np.concatenate([samples(i, 40, 2, shift=i) for i in range(5)])
    _, sorted_error = kernel_distance(rows, samples(9, 200, 2, 2.0))
    mixed = np.random.default_rng(1).permutation(rows)
    _, mixed_error = kernel_distance(mixed, samples(9, 200, 2, 2.0))
    assert 1 / 2.5 < sorted_error / mixed_error < 2.5


def test_the_standard_error_of_too_few_images_is_nan():
    estimate, error = kernel_distance(samples(0, 2), samples(1, 2))
    assert np.isfinite(estimate) and np.isnan(error)


# --- FID ---


def test_gaussian_distance_agrees_with_a_general_matrix_root():
    rng = np.random.default_rng(1)
    a, b = rng.normal(size=(2, 12, 6))
    covariance, other = a.T @ a, b.T @ b
    expected = 4 + np.trace(covariance + other - 2 * sqrtm(covariance @ other).real)
    found = gaussian_distance(np.zeros(6), covariance, np.r_[2.0, np.zeros(5)], other)
    np.testing.assert_allclose(found, expected, rtol=1e-10)


def test_frechet_distance_works_with_fewer_images_than_features():
    real, generated = samples(0, 9, 40), samples(1, 7, 40, 0.2)
    assert frechet_distance(real, real) < 1e-9
    # tr (C C')^(1/2) without a root: from singular values of the centred rows' products.
    centred = real - real.mean(axis=0), generated - generated.mean(axis=0)
    overlap = np.linalg.svd(centred[0] @ centred[1].T, compute_uv=False).sum() / np.sqrt(8 * 6)
    traces = sum((rows**2).sum() / (len(rows) - 1) for rows in centred)
    shift = real.mean(axis=0) - generated.mean(axis=0)
    expected = shift @ shift + traces - 2 * overlap
    np.testing.assert_allclose(frechet_distance(real, generated), expected, rtol=1e-6)


# --- precision, recall, nearest neighbours ---


@pytest.mark.parametrize("neighbours", [1, 3])
def test_precision_and_recall_agree_with_loops(neighbours):
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


@pytest.mark.parametrize("block", [1, 7, 1000])
def test_nearest_agrees_with_loops_whatever_the_block(block):
    queries, references = samples(0, 6, 5), samples(1, 40, 5)
    rows, distances = nearest(queries, references, block)
    for query, row, distance in zip(queries, rows, distances, strict=True):
        each = [np.linalg.norm(query - reference) for reference in references]
        assert row == np.argmin(each)
        np.testing.assert_allclose(distance, min(each), rtol=1e-12)


def test_a_copy_in_float_is_found_among_uint8_images():
    training = np.random.default_rng(0).integers(0, 256, (30, 8, 8, 3)).astype("uint8")
    rows, distances = nearest(training[[4, 21]] / 255, training, block=10)
    assert rows.tolist() == [4, 21] and distances.max() < 1e-12
    with pytest.raises(ValueError, match=r"\(8, 8, 3\).* 30 .*\(4, 4, 3\)"):
        nearest(training, training[:, :4, :4])


def test_memorisation_is_near_0_for_copies_and_near_1_for_new_images():
    training, withheld, drawn = (samples(seed, 200, 8) for seed in range(3))
    drawn[:50] = training[100:150]
    rows, ratios = memorisation(drawn, training, withheld)
    assert rows[:50].tolist() == list(range(100, 150)) and ratios[:50].max() == 0
    assert 0.9 < np.median(ratios[50:]) < 1.1
