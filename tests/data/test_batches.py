"""Batches: each epoch's order depends on seed and epoch number alone, in `fit` too."""

import contextlib
import warnings

import keras
import numpy as np
import pytest
from conftest import ON_TENSORFLOW

from diffusion.data.batches import Batches, EpochFromFit

COUNT = 23  # a prime: batches never divide it


def numbered_images(count=COUNT):
    """Images that carry their own number, in their left half only."""
    images = np.zeros((count, 2, 2, 3), dtype=np.uint8)
    images[:, :, 0] = np.arange(count)[:, None, None] + 1
    return images


def numbers(batch):
    return (np.asarray(batch).max(axis=(1, 2, 3)) - 1).tolist()


def expected_order(seed, epoch, repeats=1):
    seeds = ([seed, epoch, repeat] for repeat in range(repeats))
    order = [row for each in seeds for row in np.random.default_rng(each).permutation(COUNT)]
    return order[: len(order) // 4 * 4]


class Recorder(keras.Model):
    """A real model that keeps the numbers of the images it is trained on."""

    def __init__(self):
        super().__init__()
        self.seen = []
        self.dense = keras.layers.Dense(1)

    def call(self, images):
        return self.dense(keras.ops.cast(images, "float32"))

    def compute_loss(self, x, y=None, y_pred=None, sample_weight=None, training=True):
        # While tracing there are no numbers: each backend raises an error of its own.
        with contextlib.suppress(NotImplementedError, TypeError, ValueError):
            self.seen.extend(numbers(np.asarray(x)))
        return keras.ops.mean(y_pred**2)


def recorder():
    """A Recorder that is built: otherwise fit, on JAX, discards an epoch to build it."""
    model = Recorder()
    model.compile(optimizer="sgd", run_eagerly=True)
    model.train_on_batch(numbered_images(1))
    model.seen.clear()
    return model


def fit_and_record(batches, **options):
    model = recorder()
    model.fit(batches, **{"shuffle": False, "verbose": 0, **options})
    length = len(batches) * batches.batch_size
    return [model.seen[i : i + length] for i in range(0, len(model.seen), length)]


@pytest.mark.parametrize("repeats", [1, 3])
def test_an_epoch_is_its_permutations_and_a_hand_written_loop_moves_on_to_the_next(repeats):
    batches = Batches(numbered_images(), batch_size=4, repeats=repeats, seed=5, epoch=2)
    assert len(batches) == COUNT * repeats // 4
    for epoch in (2, 3):
        served = [number for batch in batches for number in numbers(batch)]
        assert served == expected_order(5, epoch, repeats)
        batches.on_epoch_end()


@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize("start", [0, 1, 7, 10])
def test_a_batch_is_the_same_in_whichever_order_and_from_whichever_start(flip, start):
    options = {"batch_size": 4, "repeats": 2, "flip": flip, "seed": 6, "epoch": 1}
    whole = Batches(numbered_images(), **options)
    part = Batches(numbered_images(), start=start, **options)
    expected = [whole[i] for i in range(start, 11)]
    backwards = [part[i] for i in reversed(range(len(part)))]
    np.testing.assert_array_equal(backwards[::-1], expected)
    np.testing.assert_array_equal([part[i] for i in range(len(part))], expected)


def test_flipping_mirrors_about_half_of_the_images_and_leaves_their_order():
    images = numbered_images(200)
    plain = Batches(images, batch_size=200)[0]
    flipped = Batches(images, batch_size=200, flip=True)[0]
    assert numbers(plain) == numbers(flipped)
    mirrored = flipped[:, 0, 0, 0] == 0  # the number now stands on the right
    np.testing.assert_array_equal(flipped[mirrored], plain[mirrored][:, :, ::-1])
    np.testing.assert_array_equal(flipped[~mirrored], plain[~mirrored])
    assert 70 < mirrored.sum() < 130
    again = Batches(images, batch_size=200, flip=True, epoch=1)[0]
    assert not np.array_equal(mirrored, again[:, 0, 0, 0] == 0)
    repeats = Batches(images, 200, repeats=2, shuffle=False, flip=True)
    assert not np.array_equal(repeats[0], repeats[1])


def test_without_shuffling_images_keep_their_order_and_the_remainder_is_dropped():
    batches = Batches(numbered_images(), batch_size=5, repeats=2, shuffle=False)
    assert [n for batch in batches for n in numbers(batch)] == (list(range(COUNT)) * 2)[:45]


def test_batches_are_writable_copies_of_mapped_images(tmp_path):
    np.save(tmp_path / "images.npy", numbered_images())
    mapped = np.load(tmp_path / "images.npy", mmap_mode="r")
    batch = Batches(mapped, batch_size=4, shuffle=False, flip=True)[0]
    assert type(batch) is np.ndarray and batch.dtype == np.uint8
    batch[:] = 0  # would raise, or spoil the images, if it were a view
    np.testing.assert_array_equal(mapped, numbered_images())


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"shuffle": False},
        {"flip": True, "repeats": 3, "epoch": 2, "seed": 5},
        {"transform": lambda images: images[:, ::-1]},
        {"start": 2, "share": slice(1, 3)},
    ],
)
def test_each_image_comes_with_its_own_label_and_in_the_order_it_has_without(options):
    plain = Batches(numbered_images(), 4, **options)
    labelled = Batches(numbered_images(), 4, labels=1000 + np.arange(COUNT), **options)
    assert len(plain) == len(labelled)
    for index in reversed(range(len(plain))):
        batch = labelled[index]
        assert batch["labels"].dtype == np.int32
        assert (batch["labels"] - 1000).tolist() == numbers(batch["images"])
        np.testing.assert_array_equal(batch["images"], plain[index])


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"labels": np.zeros(22, int)}, "22 labels for 23 images"),
        *(({name: 0}, f"{name} .*0") for name in ("batch_size", "repeats")),
        *(({name: -1}, f"{name} .*-1") for name in ("seed", "epoch")),
        *(({"start": start}, f"start={start} .*0 to 4") for start in (5, 6, 100)),
        ({"start": 1.5}, r"start .*1\.5"),
        ({"batch_size": 64, "repeats": 2}, r"23 images x 2 repeats .* 64"),
    ],
)
def test_numbers_out_of_range_are_refused_by_name_and_value(options, words):
    with pytest.raises(ValueError, match=words):
        Batches(numbered_images(), **{"batch_size": 4, **options})


def test_a_batch_beyond_the_last_is_an_index_error():
    batches = Batches(numbered_images(), batch_size=4)
    for index in (-1, len(batches)):
        with pytest.raises(IndexError, match="of 5"):
            batches[index]


@pytest.mark.parametrize("workers", [0, 1, 2])
def test_each_epoch_of_fit_sees_its_own_order_also_when_resumed(workers):
    options = {"batch_size": 4, "seed": 7, "workers": workers}
    batches = Batches(numbered_images(), repeats=2, **options)
    assert fit_and_record(batches, epochs=3) == [expected_order(7, e, 2) for e in range(3)]
    assert batches.epoch == 3
    assert fit_and_record(batches, epochs=1) == [expected_order(7, 3, 2)]
    batches.epoch = 2
    resumed = fit_and_record(batches, initial_epoch=2, epochs=4)
    assert resumed == [expected_order(7, epoch, 2) for epoch in (2, 3)]
    batches = Batches(numbered_images(), epoch=3, start=2, **options)
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)  # about batches read out of order
        (rest,) = fit_and_record(batches, initial_epoch=3, epochs=4)
    assert rest == expected_order(7, 3)[8:]


def test_validation_does_not_disturb_the_order_of_training():
    training = Batches(numbered_images(), batch_size=4)
    held_out = Batches(numbered_images(), batch_size=4, shuffle=False)
    model = recorder()
    model.fit(training, validation_data=held_out, epochs=2, shuffle=False, verbose=0)
    passes = [model.seen[i : i + 20] for i in range(0, 80, 20)]
    assert passes[0::2] == [expected_order(0, 0), expected_order(0, 1)]
    assert passes[1::2] == [list(range(20))] * 2


class WithTargets(Batches):
    """Batches for a model that learns a number from each image."""

    def __getitem__(self, index):
        return super().__getitem__(index).astype("float32"), np.zeros((self.batch_size, 1))


def test_the_epoch_can_follow_fit_which_may_discard_one():
    scope = contextlib.nullcontext()  # on JAX, an unbuilt model is enough
    if ON_TENSORFLOW:
        import tensorflow as tf

        scope = tf.distribute.MirroredStrategy(["CPU:0"]).scope()
    with scope:
        model = keras.Sequential([keras.layers.Flatten(), keras.layers.Dense(1)])
        model.compile(optimizer="sgd", loss="mse")
    epochs, batches = [], WithTargets(numbered_images(), batch_size=4, epoch=9)  # a stale number
    keep = keras.callbacks.LambdaCallback(
        on_train_batch_begin=lambda batch, logs: epochs.append(batches.epoch)
    )
    callbacks = [EpochFromFit(batches), keep]
    model.fit(batches, initial_epoch=3, epochs=5, shuffle=False, verbose=0, callbacks=callbacks)
    assert epochs == [3] * 5 + [4] * 5


def test_a_fit_that_reorders_the_batches_warns():
    keras.utils.set_random_seed(0)
    batches = Batches(numbered_images(), batch_size=1)
    with pytest.warns(UserWarning, match="shuffle=False"):
        fit_and_record(batches, epochs=1, shuffle=True)
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        fit_and_record(batches, epochs=2)
