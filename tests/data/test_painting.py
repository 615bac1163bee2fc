"""Painted flowers: repeatable, balanced and worth looking at."""

import numpy as np
import pytest

from diffusion.data import painting
from diffusion.data.painting import SPECIES, paint_flowers


@pytest.fixture(scope="module")
def garden():
    """Twelve small images of each species."""
    return paint_flowers(12 * len(SPECIES), image_size=32, seed=3)


def shrunk(images, size):
    """Images averaged down to `size`, as floats."""
    count, height = images.shape[:2]
    step = height // size
    return images.reshape(count, size, step, size, step, 3).mean((2, 4))


def test_an_image_follows_from_its_seed_to_the_byte_however_many_are_painted():
    few, few_labels = paint_flowers(5, image_size=32, seed=1)
    many, many_labels = paint_flowers(37, image_size=32, seed=1)
    np.testing.assert_array_equal(few, many[:5])
    np.testing.assert_array_equal(few_labels, many_labels[:5])
    others, _ = paint_flowers(37, image_size=32, seed=0)
    assert len({image.tobytes() for image in (*many, *others)}) == 2 * 37


def test_every_species_comes_once_in_each_round(garden):
    _, labels = garden
    assert 12 <= len(SPECIES) == len(set(SPECIES)) and labels.dtype == np.int64
    rounds = labels.reshape(-1, len(SPECIES))
    np.testing.assert_array_equal(np.sort(rounds), np.tile(range(len(SPECIES)), (len(rounds), 1)))
    assert len({tuple(order) for order in rounds.tolist()}) == len(rounds), "orders repeat"


@pytest.mark.parametrize("size", [16, 17, 32, 50, 64, 96, 128])
def test_every_size_gives_uint8_images_that_use_the_range(size):
    images, labels = paint_flowers(2, image_size=size)
    assert images.shape == (2, size, size, 3)
    assert images.dtype == np.uint8
    assert labels.shape == (2,)
    assert images.min() < 60 and images.max() > 200


@pytest.mark.parametrize("size", [16, 32, 64])
def test_the_same_flower_is_painted_at_every_size(size):
    large, large_labels = paint_flowers(16, image_size=128, seed=2)
    small, small_labels = paint_flowers(16, image_size=size, seed=2)
    np.testing.assert_array_equal(small_labels, large_labels)
    np.testing.assert_allclose(small.mean((1, 2)), large.mean((1, 2)), atol=1.5)
    assert np.abs(small - shrunk(large, size)).mean() < 2


def test_outlines_are_soft_by_one_pixel_and_follow_moves_smaller_than_that():
    brightness = []
    for shift in (0.0, 0.25, 0.5, 0.75):
        canvas = painting.Canvas(64, 1j)
        white = np.ones((3, 256), "f4")
        canvas.petal(-0.5 + shift * 2 / 64, 1.0, 1j, painting.DOME, white)
        row = canvas.pixels[0, 32] / canvas.pixels[0, 32].max()
        edge = row[(row > 0.02) & (row < 0.6)]  # inside the petal, its shading stays above this
        assert 1 <= len(edge) <= 4
        brightness.append(row[16])
    assert np.all(np.diff(brightness) < -0.1), "the edge pixel fades as the petal moves off it"


def test_the_flower_stands_out_from_its_background(garden):
    images, _ = garden
    middle = images[:, 12:20, 12:20].mean((1, 2))
    corners = images[:, [0, 0, 1, 1, -1, -1, -2, -2], [0, -1, 1, -2, 0, -1, 1, -2]].mean(1)
    contrast = np.linalg.norm(middle - corners, axis=-1)
    assert np.mean(contrast > 30) > 0.95


def test_images_of_one_species_vary(garden):
    images, labels = garden
    for label in range(len(SPECIES)):
        own = images[labels == label].astype(float)
        apart = np.abs(own[:, None] - own[None]).mean((2, 3, 4))
        assert apart[~np.eye(len(own), dtype=bool)].min() > 12, SPECIES[label]


def test_the_most_similar_image_is_mostly_of_the_same_species(garden):
    images, labels = garden
    flat = shrunk(images, 16).reshape(len(images), -1)
    squares = (flat**2).sum(1)
    apart = squares[:, None] + squares[None] - 2 * flat @ flat.T
    np.fill_diagonal(apart, np.inf)
    assert np.mean(labels[apart.argmin(1)] == labels) > 0.5  # a guess is right 1 time in 16


@pytest.mark.parametrize(
    ("name", "value"),
    [("count", 0), ("count", -3), ("image_size", 15), ("image_size", 129), ("seed", -1)],
)
def test_arguments_out_of_range_are_named_with_their_value(name, value):
    with pytest.raises(ValueError, match=f"{name}.*{value}"):
        paint_flowers(**{"count": 1, name: value})


def test_a_progress_bar_is_shown_only_on_request(capsys):
    paint_flowers(1, image_size=16)
    assert capsys.readouterr().err == ""
    paint_flowers(1, image_size=16, progress=True)
    assert "painting flowers" in capsys.readouterr().err
