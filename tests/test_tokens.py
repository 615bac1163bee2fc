"""An image becomes tokens and back, and each token knows its column and row."""

import math

import numpy as np

from diffusion.tokens import patchify, positions, unpatchify

RNG = np.random.default_rng(0)


def test_tokens_are_patches_in_reading_order_and_back():
    images = RNG.normal(size=(2, 8, 8, 3)).astype("float32")
    tokens = np.asarray(patchify(images, 4))
    for row in range(2):
        for column in range(2):
            patch = images[:, 4 * row : 4 * row + 4, 4 * column : 4 * column + 4]
            np.testing.assert_array_equal(tokens[:, 2 * row + column], patch.reshape(2, -1))
    np.testing.assert_array_equal(unpatchify(tokens, 4), images)


def test_positions_are_sines_and_cosines_of_column_and_row():
    table = positions(3, 8).reshape(3, 3, 8)
    for row in range(3):
        for column in range(3):
            expected = [
                wave(place * frequency)
                for place in (column, row)
                for wave in (math.sin, math.cos)
                for frequency in (1, 0.01)
            ]
            np.testing.assert_allclose(table[row, column], expected, atol=1e-12)
