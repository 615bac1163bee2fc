"""Names: which share of generated images a classifier calls what they were asked for."""

import json

import keras
import numpy as np
import pytest
from test_evaluate import averages

from diffusion.evaluation.classifier import build_classifier, save_classifier
from diffusion.evaluation.evaluate import draw_labels, evaluate_samplers, generate_images, table
from diffusion.evaluation.naming import SpeciesClassifier, load_species_classifier
from diffusion.training.building import load_model

COLOURS = SpeciesClassifier(
    lambda images: keras.ops.mean(images, axis=(1, 2)), ("rose", "clover", "bluebell")
)


def coloured(*channels):
    """Dark images, each bright in one channel."""
    return 0.1 + 0.8 * np.eye(3, dtype="float32")[list(channels)][:, None, None, :].repeat(4, 2)


def test_the_share_named_counts_images_with_their_own_name_by_text_not_by_number():
    images = coloured(0, 0, 1, 2, 2)
    assert COLOURS(images) == ["rose", "rose", "clover", "bluebell", "bluebell"]
    asked = ["rose", "clover", "clover", "bluebell", "rose"]
    assert COLOURS.share_named(images, asked) == 3 / 5
    assert COLOURS.share_named(np.uint8(images * 255), asked) == 3 / 5
    with pytest.raises(ValueError, match="does not know 'iris'"):
        COLOURS.share_named(images[:1], ["iris"])


def test_a_saved_classifier_comes_with_the_names_of_its_record(tmp_path):
    path = tmp_path / "small.keras"
    keras.utils.set_random_seed(0)
    network = build_classifier(3, 16, (4, 8))
    save_classifier(network, path, {"species": ["a", "b", "c"]})
    classifier = load_species_classifier(path)
    images = np.random.default_rng(0).random((20, 16, 16, 3), "float32")
    best = np.asarray(network(images)).argmax(axis=1)
    expected = [classifier.names[number] for number in best]
    assert np.mean([a == b for a, b in zip(classifier(images), expected, strict=True)]) > 0.9
    for record, words in (({"species": ["a"]}, "the 1 species"), ({}, "does not list")):
        path.with_suffix(".json").write_text(json.dumps(record))
        with pytest.raises(ValueError, match=words):
            load_species_classifier(path)
    path.with_suffix(".json").unlink()
    with pytest.raises(FileNotFoundError, match=r"small\.json"):
        load_species_classifier(path)


def test_the_classifier_that_ships_knows_the_flowers_by_their_names():
    names = load_species_classifier().names
    assert len(names) == 102 and {"sunflower", "rose", "water lily"} <= set(names)


def test_labels_are_drawn_in_the_proportions_of_the_real_ones():
    labels = np.repeat([4, 7, 9], [10, 20, 70])
    some, all_of_them, more = (draw_labels(labels, count, 1) for count in (50, 100, 250))
    assert sorted(all_of_them) == sorted(labels)
    assert np.all(np.bincount(some, minlength=10) <= np.bincount(labels, minlength=10))
    assert np.bincount(more)[9] in range(2 * 70, 3 * 70 + 1)
    np.testing.assert_array_equal(some, draw_labels(labels, 50, 1))
    assert (some != draw_labels(labels, 50, 2)).any()


@pytest.fixture(scope="module")
def model(by_name):
    return load_model(by_name)


def test_each_image_of_a_batch_is_generated_by_its_own_label(model):
    labels = np.arange(10) % 3
    generated = generate_images(model, "ddim", 2, 10, 3, batch_size=4, labels=labels, guidance=3.0)
    expected = model.generate(10, 2, seed=3, labels=labels, guidance=3.0)
    nameless = model.generate(10, 2, seed=3)
    for image, same, other in zip(generated, expected, nameless, strict=True):
        assert np.abs(image - same).mean() < 0.01 < 0.05 < np.abs(image - other).mean()
    with pytest.raises(ValueError, match="9 labels for 10 images"):
        generate_images(model, "ddim", 2, 10, labels=labels[:9])


def test_rows_by_guidance_scale_have_the_share_named(model, painted):
    names = [painted.class_names[label] for label in painted.labels]
    always = painted.class_names[0]  # the classifier's one answer

    def scores(images):
        return keras.ops.one_hot(keras.ops.zeros(len(images), "int32"), len(painted.class_names))

    options = {"steps": (2,), "num_images": 48, "guidance": (0, 1, 4), "seed": 5}
    options |= {"labels": names, "classifier": SpeciesClassifier(scores, painted.class_names)}
    done = []
    rows = evaluate_samplers(model, averages, painted.images, **options, on_progress=done.append)
    assert [row["guidance"] for row in rows] == [None, 0, 1, 4]
    # 48 labels of 48 real images: every row has the share of the one name among them.
    assert {row["named"] for row in rows} == {names.count(always) / 48}
    assert len({row["kid"] for row in rows}) == 4 and sum(done) == 4 * 48
    without = evaluate_samplers(model, averages, painted.images, steps=(2,), num_images=48, seed=5)
    np.testing.assert_allclose(rows[1]["kid"], without[1]["kid"], rtol=1e-3)  # scale 0: no names
    assert "named" not in without[1] and "guidance" not in table(without)
    lines = table(rows).splitlines()
    assert lines[0].split()[:3] == ["sampler", "steps", "guidance"] and "named" in lines[0]
    assert f"{rows[3]['named']:.3f}" in lines[4] and len({len(line) for line in lines}) == 1


def test_where_guidance_acts_makes_a_difference(model, painted):
    names = [painted.class_names[label] for label in painted.labels]
    options = {"steps": (3,), "num_images": 16, "guidance": (4,), "labels": names}
    kids = [
        evaluate_samplers(model, averages, painted.images, **options, guidance_interval=interval)[
            1
        ]["kid"]
        for interval in (None, (0.0, 1.0), (0.0, 0.0))
    ]
    np.testing.assert_allclose(kids[1], kids[0], rtol=1e-6)
    assert kids[2] != kids[0]
    plain = evaluate_samplers(model, averages, painted.images, **options | {"guidance": (1,)})
    np.testing.assert_allclose(kids[2], plain[1]["kid"], rtol=1e-6)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"labels": ["rose"] * 9}, "9 labels for 48 images"),
        ({"labels": ["rosa"] * 48}, "'rosa'.*rose"),
        ({"labels": [16] * 48}, "label 16.*15"),
        ({"labels": ["iris"] * 48, "classifier": COLOURS}, "does not know 'iris'"),
        ({"labels": ["rose"] * 48, "guidance": (1, np.nan)}, "guidance.*nan"),
        ({"labels": ["rose"] * 48, "guidance_interval": (0.9, 0.1)}, "guidance_interval"),
    ],
)
def test_names_that_cannot_be_evaluated_are_refused_before_anything_is_generated(
    options, words, model, painted
):
    with pytest.raises(ValueError, match=words):
        evaluate_samplers(model, None, painted.images, **options)
