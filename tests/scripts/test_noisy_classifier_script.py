"""The command line train_noisy_classifier.py."""

import json

import numpy as np
import pytest
import train_noisy_classifier
from processes import assert_one_line

from diffusion.noisy_classifier import load_noisy_classifier


@pytest.mark.slow
def test_it_saves_a_classifier_that_guides_the_model_it_was_made_for(trained, tmp_path, call):
    path = tmp_path / "noisy.keras"
    arguments = ["--model", trained.folder, "--data-dir", "painted", "--painted", 64]
    arguments += ["--epochs", 1, "--batch-size", 16, "--output", path]
    status, output, errors = call("train_noisy_classifier.py", *arguments)
    assert status == 0, errors
    train_noisy_classifier.parse_arguments()  # its own file may be replaced
    assert "16 species, 48 of 64 painted flowers" in output and "held out" in output
    record = json.loads(path.with_suffix(".json").read_text())
    assert record["steps"] == 3 and len(record["species"]) == 16
    held_out = record["held_out_accuracy_by_noise_rate"]
    assert list(held_out) == ["0.0", "0.2", "0.4", "0.6", "0.8", "0.9"]
    assert all(0 <= share <= 1 for share in held_out.values())
    classifier, model = load_noisy_classifier(path), trained.model
    assert repr(classifier.schedule) == repr(model.schedule)
    images = np.random.default_rng(0).random((1, 16, 16, 3)).astype("float32")
    np.testing.assert_array_equal(classifier.normalize(images), model.normalize(images))
    options = {"labels": "sunflower", "classifier": classifier, "seed": 0, "steps": 2}
    plain, guided = (model.generate(1, guidance=scale, **options) for scale in (0, 50))
    assert np.isfinite(guided).all() and np.abs(guided - plain).max() > 1e-3
    assert sorted(p.name for p in tmp_path.iterdir()) == ["noisy.json", "noisy.keras"]


def test_a_batch_larger_than_the_data_is_refused_in_one_line(trained, tmp_path, call):
    arguments = ["--model", trained.folder, "--data-dir", "painted", "--painted", 8]
    arguments += ["--batch-size", 999, "--output", tmp_path / "noisy.keras"]
    status, _, errors = call("train_noisy_classifier.py", *arguments)
    assert status == 2 and not list(tmp_path.iterdir())
    assert_one_line(errors, "6 images x 1 repeats do not fill one batch of 999")
