"""Labels: names become numbers, some are withheld in training, and a saved model knows them."""

import dataclasses

import keras
import numpy as np
import pytest
from processes import python

from diffusion.data.batches import Batches
from diffusion.guidance import dropped
from diffusion.labels import label_numbers
from diffusion.latents import initial_noise
from diffusion.model import DiffusionModel
from diffusion.schedules import OffsetCosineSchedule
from diffusion.training.loop import load_model
from diffusion.unet import build_unet

NAMES = ("rose", "Lily", "tiger lily", "orange dahlia")


@pytest.mark.parametrize(
    ("labels", "count", "numbers"),
    [
        ("rose", 3, [0, 0, 0]),
        (" LILY ", None, [1]),
        (2, 2, [2, 2]),
        (np.int64(3), 1, [3]),
        (np.array(3), 2, [3, 3]),
        (None, 2, [4, 4]),
        (["Tiger Lily", None, 0, np.int32(3)], None, [2, 4, 0, 3]),
        (("rose", "lily"), 2, [0, 1]),
        (np.arange(4), 4, [0, 1, 2, 3]),
    ],
)
def test_names_in_any_case_and_numbers_become_numbers_one_for_each_image(labels, count, numbers):
    found = label_numbers(labels, NAMES, count)
    assert found.dtype == np.int32 and found.tolist() == numbers


def test_names_that_differ_in_case_alone_are_told_apart():
    assert label_numbers(["rose", "Rose"], ("Rose", "rose")).tolist() == [1, 0]


@pytest.mark.parametrize(
    ("labels", "count", "words"),
    [
        ("rosse", 1, "no flower named 'rosse': did you mean rose"),
        ("dahlia", 1, "'dahlia': did you mean orange dahlia"),
        ("quux", 1, "'quux': there are 4 names"),
        ("", 1, "'': there are 4 names"),
        *((label, 1, "a whole number from 0 to 3") for label in (4, -1, 1.5, True, np.inf)),
        (["rose", "lily"], 3, "2 labels for 3 images: give a list of 3, or one label without"),
        (["rose"], 2, "1 labels for 2 images"),
    ],
)
def test_what_is_no_label_is_named_with_the_nearest_in_one_line(labels, count, words):
    with pytest.raises(ValueError, match=words) as error:
        label_numbers(labels, NAMES, count)
    assert "\n" not in str(error.value)


def test_names_are_found_without_keras():
    python("-c", "import sys, diffusion.labels; assert 'keras' not in sys.modules")


def test_the_share_of_labels_dropped_is_the_probability_and_the_others_stay():
    count, share = 20_000, 0.3
    labels = np.arange(count) % 5
    left = np.asarray(dropped(labels, share, 5, keras.random.SeedGenerator(1)))
    gone = left == 5
    assert abs(gone.mean() - share) < 4 * (share * (1 - share) / count) ** 0.5
    np.testing.assert_array_equal(left[~gone], labels[~gone])
    assert np.ptp(np.bincount(labels[gone])) < 300  # of each label as many


class Recording(DiffusionModel):
    """A model that keeps what its network is given."""

    def call_network(self, inputs, training=False):
        self.seen = {name: np.asarray(value) for name, value in inputs.items()}
        return super().call_network(inputs, training)


def recording(class_names=NAMES, **options):
    network = build_unet(16, (8, 8), 1, 8, num_classes=len(class_names))
    model = Recording(network, OffsetCosineSchedule(), class_names=class_names, **options)
    model.set_statistics(0.5, 0.25)
    return model


def batch_of(painted):
    return {"images": painted.images[:40], "labels": np.arange(40, dtype="int32") % 4}


def test_dropping_labels_leaves_the_noises_and_times_of_every_step(painted):
    batch, models = batch_of(painted), [recording(label_dropout=share) for share in (0.0, 0.5)]
    for _ in range(3):
        (one, *_), (other, *_) = (model(batch, training=True) for model in models)
        np.testing.assert_array_equal(one, other)
        for name in ("noisy_images", "noise_variances"):
            np.testing.assert_array_equal(*(model.seen[name] for model in models))
        np.testing.assert_array_equal(models[0].seen["labels"], batch["labels"])
        assert 4 in models[1].seen["labels"]
    plain = recording(class_names=())(batch, training=True)[0]
    np.testing.assert_array_equal(plain, recording()(batch, training=True)[0])


def test_names_are_withheld_in_training_alone_and_images_without_labels_have_none(painted):
    model, batch = recording(label_dropout=0.9), batch_of(painted)
    model(batch, training=False)
    np.testing.assert_array_equal(model.seen["labels"], batch["labels"])
    model(batch, training=True)
    withheld = model.seen["labels"] == len(NAMES)
    assert 25 < withheld.sum() < 40
    np.testing.assert_array_equal(model.seen["labels"][~withheld], batch["labels"][~withheld])
    for training in (True, False):
        model(batch["images"], training=training)
        assert (model.seen["labels"] == len(NAMES)).all()


def test_evaluate_depends_on_the_names_of_the_images(named, painted):
    def loss(**changes):
        flowers, model = dataclasses.replace(painted, **changes), load_model(named.folder)
        batches = Batches(flowers.images, 8, labels=flowers.labels, shuffle=False)
        return model.evaluate(batches, verbose=0)

    assert loss() == loss() != loss(labels=np.roll(painted.labels, 1))


def test_each_image_is_given_its_own_name(named):
    model, noise = named.model, initial_noise(3, 16, seed=0)
    names = [*model.class_names[:2], None]
    together = model.generate(initial_noise=noise, steps=3, labels=names)
    for row, name in enumerate(names):
        alone = model.generate(initial_noise=noise[row : row + 1], steps=3, labels=name)[0]
        np.testing.assert_allclose(together[row], alone, atol=1e-5)
        other = model.generate(initial_noise=noise[row : row + 1], steps=3, labels=5)[0]
        assert np.abs(alone - other).max() > 1e-4
    no_name = model.generate(initial_noise=noise, steps=3)[2]
    np.testing.assert_allclose(together[2], no_name, atol=1e-5)
    assert model.generate(steps=1, labels=names, seed=1).shape == (3, 16, 16, 3)


@pytest.mark.parametrize("label", ["rose", np.int64(1), 1])
def test_a_label_alone_does_not_say_how_many_images(named, label):
    with pytest.raises(ValueError, match="either num_images or"):
        named.model.generate(labels=label)


def test_a_model_without_names_says_so(trained):
    with pytest.raises(ValueError, match=r"has no names.*without labels"):
        trained.model.generate(1, 1, labels="rose")


RELOAD = """
import sys
import numpy as np
from diffusion.training.loop import load_model

model = load_model(sys.argv[1])
label = model.class_names[3]
options = {"seed": 3, "labels": label, "guidance": 2.0}
np.savez(sys.argv[2], model.generate(2, 4, **options), np.array(model.class_names))
"""


@pytest.mark.slow
def test_a_new_process_knows_the_names_and_generates_the_same_to_the_bit(named, tmp_path):
    python("-c", RELOAD, named.folder, tmp_path / "out.npz")
    images, names = np.load(tmp_path / "out.npz").values()
    assert tuple(names) == named.model.class_names
    assert load_model(named.folder).label_dropout == named.model.label_dropout == 0.1
    expected = named.model.generate(2, 4, seed=3, labels=names[3].upper(), guidance=2.0)
    np.testing.assert_array_equal(images, expected)
