"""Evaluation: what is held out, and the rows for samplers and steps."""

import dataclasses

import keras
import numpy as np
import pytest

from diffusion.data.holdout import hold_out, seen_in_training
from diffusion.evaluation.distances import frechet_distance, kernel_distance
from diffusion.evaluation.evaluate import (
    evaluate_samplers,
    generate_images,
    measure,
    real_against_real,
    table,
)


def averages(images):
    """An encoder without weights: the colours of a 2x2 image, 12 features."""
    half = keras.ops.shape(images)[1] // 2
    small = keras.ops.average_pool(images, half, half)  # on JAX Keras needs the strides
    return keras.ops.reshape(small, (-1, 12))


@pytest.fixture
def in_splits(painted):
    splits = np.repeat(["train", "valid", "test"], [30, 10, 8])
    return dataclasses.replace(painted, splits=splits, name="folder")


# --- what is held out, and whether the model was trained on it ---


def test_the_same_images_are_held_out_every_time_and_never_trained_on(painted):
    kept, held, words = hold_out(painted)
    assert sorted([*kept, *held]) == list(range(len(painted)))
    assert len(held) == len(painted) // 4 and "painted, 12" in words
    np.testing.assert_array_equal(held, hold_out(painted)[1])


def test_where_there_are_splits_one_of_them_is_held_out(in_splits):
    kept, held, words = hold_out(in_splits)
    assert held.tolist() == list(range(30, 40)) and len(kept) == 38
    assert "valid split of folder, 10" in words
    with pytest.raises(ValueError, match=r"'val'.*test, train, valid"):
        hold_out(in_splits, "val")


@pytest.mark.parametrize(
    ("data", "words"),
    [
        ("7,370 flowers from folder, 64x64, centre crop", "on these"),
        ("10 of 40 flowers from folder, 64x64, centre crop, splits valid", "on these"),
        ("30 of 40 flowers from folder, 64x64, centre crop, splits train", "not trained on these"),
        ("40 flowers from folder-2, 64x64, centre crop", "not known"),
        ("48 painted flowers, 16x16, seed 0", "on other"),
    ],
)
def test_the_record_says_whether_the_model_was_trained_on_what_is_held_out(data, words, in_splits):
    line = seen_in_training({"data": data}, in_splits)
    assert words in line and data in line


def test_painted_flowers_of_another_seed_are_other_images(painted):
    record = {"data": painted.description}
    assert "on these" in seen_in_training(record, painted)
    other = dataclasses.replace(painted, description="48 painted flowers, 16x16, seed 1")
    assert "on other" in seen_in_training(record, other)


# --- the rows ---


def features(seed, count, shift=0.0):
    return np.random.default_rng(seed).normal(shift, 1, (count, 4))


def test_a_row_holds_the_distances():
    real, generated = features(0, 130), features(1, 90, 0.5)
    row = measure(real, generated, batch_size=32)
    kid, error = kernel_distance(real, generated)
    np.testing.assert_allclose([row["kid"], row["kid_error"]], [kid, error], rtol=1e-12)
    np.testing.assert_allclose(row["fid"], frechet_distance(real, generated), rtol=1e-12)
    assert (row["real"], row["generated"]) == (130, 90)
    assert row["kid_batches"] != kid  # of two batches of 32; the remainder is dropped
    assert abs(row["kid_batches"] - kid) < 4 * error


def test_real_against_real_uses_each_image_once_and_finds_no_distance():
    floors = [real_against_real(features(seed, 201)) for seed in range(40)]
    assert all((row["real"], row["generated"]) == (100, 101) for row in floors)
    kids = [row["kid"] for row in floors]
    assert abs(np.mean(kids)) < 4 * np.std(kids) / np.sqrt(len(kids))
    assert min(row["precision"] for row in floors) > 0.8


def test_images_are_generated_in_batches_from_the_noise_of_the_seed(trained):
    model = trained.model
    expected = model.generate(10, 2, seed=3)
    generated = generate_images(model, "ddim", 2, 10, 3, batch_size=4)
    np.testing.assert_allclose(generated, expected, atol=1e-3)
    largest = 2**32 - 1  # a later batch must not exceed what JAX takes as a seed
    noisy = [generate_images(model, "ddpm", 3, 8, largest, batch_size=4) for _ in range(2)]
    np.testing.assert_array_equal(*noisy)


def test_there_is_a_row_for_each_sampler_and_number_of_steps(trained, painted):
    done = []
    options = {"samplers": ("ddim", "heun"), "steps": (1, 3), "num_images": 12}
    images = painted.images
    rows = evaluate_samplers(trained.model, averages, images, **options, on_progress=done.append)
    settings = [(row["sampler"], row["steps"]) for row in rows]
    assert settings[1:] == [("ddim", 1), ("ddim", 3), ("heun", 1), ("heun", 3)]
    assert rows[0]["sampler"] == "real against real" and rows[0]["real"] == 24
    assert sum(done) == len(images) + 12 * 4
    assert all(row["kid"] > rows[0]["kid"] for row in rows[1:])  # two epochs make no flowers
    lines = table(rows).splitlines()
    assert len(lines) == 6 and len({len(line) for line in lines}) == 1
    assert lines[1].startswith("real against real") and f"{rows[4]['kid']:.5f}" in lines[5]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"samplers": ("ddim", "euler")}, "'euler'.*ddim"),
        ({"steps": (5, 0)}, "steps.*got 0"),
        ({"num_images": 7}, "num_images.*got 7"),
        ({"images": np.zeros((7, 16, 16, 3))}, "7 real images"),
        ({"images": np.zeros((9, 8, 8, 3))}, "16x16.*8x8"),
    ],
)
def test_what_cannot_be_evaluated_is_refused_before_anything_is_generated(
    options, words, trained, painted
):
    with pytest.raises(ValueError, match=words):
        evaluate_samplers(trained.model, None, **{"images": painted.images} | options)
