"""Paths between noises: the formula, and what each path keeps."""

import numpy as np
import pytest

from diffusion.latents import initial_noise, slerp, spherical_interpolation, walks

TIMES = np.linspace(0, 1, 9)


@pytest.fixture
def noises():
    return np.asarray(initial_noise(2, 32, seed=1))


def test_initial_noise_is_standard_normal_and_follows_its_seed():
    noise = np.asarray(initial_noise(16, 32, seed=4))
    assert noise.shape == (16, 32, 32, 3) and noise.dtype == np.float32
    assert abs(noise.mean()) < 0.02 and abs(noise.std() - 1) < 0.02
    np.testing.assert_array_equal(noise, initial_noise(16, 32, seed=4))
    assert np.abs(noise - np.asarray(initial_noise(16, 32, seed=5))).max() > 1


def test_spherical_interpolation_is_the_chapters_formula(noises):
    a, b = noises
    for t in (0.0, 0.25, 0.5, 1.0):
        expected = a * np.sin(np.pi / 2 * t) + b * np.cos(np.pi / 2 * t)
        np.testing.assert_allclose(spherical_interpolation(a, b, t), expected, atol=1e-6)
    walk = np.asarray(spherical_interpolation(a, b, TIMES))
    assert walk.shape == (9, 32, 32, 3)
    np.testing.assert_allclose(walk[4], spherical_interpolation(a, b, 0.5), atol=1e-6)


@pytest.mark.parametrize("walk", [spherical_interpolation, slerp])
def test_independent_noises_keep_their_variance_all_the_way(walk, noises):
    a, b = noises
    variances = np.asarray(walk(a, b, TIMES)).var(axis=(1, 2, 3))
    np.testing.assert_allclose(variances, 1, atol=0.06)


def test_slerp_keeps_the_length_of_correlated_noises_where_the_chapters_formula_warns(noises):
    a = noises[0]
    b = 0.9 * a + np.sqrt(1 - 0.81) * noises[1]
    b *= np.linalg.norm(a) / np.linalg.norm(b)
    lengths = np.linalg.norm(np.asarray(slerp(a, b, TIMES)).reshape(9, -1), axis=1)
    np.testing.assert_allclose(lengths, np.linalg.norm(a), rtol=1e-5)
    with pytest.warns(UserWarning, match=r"cosine 0\.(89|9)"):
        middle = np.asarray(spherical_interpolation(a, b, 0.5))
    assert np.linalg.norm(middle) > 1.3 * np.linalg.norm(a)


def test_slerp_moves_at_constant_speed_from_b_to_a(noises):
    a, b = (noise / np.linalg.norm(noise) for noise in noises)
    walk = np.asarray(slerp(a, b, TIMES)).reshape(9, -1).astype("float64")
    np.testing.assert_allclose(walk[0], b.ravel(), atol=1e-5)
    np.testing.assert_allclose(walk[-1], a.ravel(), atol=1e-5)
    unit = walk / np.linalg.norm(walk, axis=1, keepdims=True)
    angles = np.arccos((unit[:-1] * unit[1:]).sum(axis=1))
    np.testing.assert_allclose(angles, angles.mean(), rtol=0.02)
    np.testing.assert_allclose(slerp(a, a, 0.3), a, atol=1e-6)


def test_each_pair_of_a_batch_has_its_own_angle(noises):
    a = np.stack([noises[0], noises[0]])
    b = np.stack([0.8 * noises[0] + 0.6 * noises[1], noises[1]])
    together = np.asarray(slerp(a, b, 0.3))
    for index in range(2):
        np.testing.assert_allclose(together[index], slerp(a[index], b[index], 0.3), atol=1e-5)
    with pytest.warns(UserWarning, match=r"cosine 0\.[78]"):
        spherical_interpolation(a, b, 0.3)


def test_walks_lead_from_each_noise_to_the_next_and_back_to_the_first():
    noises = np.asarray(initial_noise(3, 16, seed=2))
    rows = np.asarray(walks(noises, 5)).reshape(3, 5, 16, 16, 3)
    for row in range(3):
        np.testing.assert_allclose(rows[row, 0], noises[row], atol=1e-5)
        np.testing.assert_allclose(rows[row, -1], noises[(row + 1) % 3], atol=1e-5)
    np.testing.assert_allclose(rows[0, 2], slerp(noises[0], noises[1], 0.5), atol=1e-5)


def test_the_largest_seed_and_numpy_integers_draw(noises):
    assert np.isfinite(np.asarray(initial_noise(1, 4, seed=2**32 - 1))).all()
    np.testing.assert_array_equal(initial_noise(2, 32, seed=np.int64(1)), noises)
