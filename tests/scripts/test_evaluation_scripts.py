"""The command lines evaluate.py and train_encoder.py."""

import json

import keras
import numpy as np
import pytest
import train_encoder
from PIL import Image
from processes import assert_one_line

from diffusion.evaluation.classifier import build_classifier, save_classifier
from diffusion.evaluation.encoder import encode, load_encoder


@pytest.fixture(scope="module")
def encoder_file(tmp_path_factory):
    path = tmp_path_factory.mktemp("encoder") / "small.keras"
    keras.utils.set_random_seed(0)
    save_classifier(build_classifier(16, 16, (4, 8)), path, {})
    return path


@pytest.mark.slow
def test_evaluate_prints_plots_and_saves_a_table_that_follows_from_the_seed(
    trained, encoder_file, tmp_path, call
):
    arguments = ["--model", trained.folder, "--data-dir", "painted", "--encoder", encoder_file]
    arguments += ["--samplers", "ddpm", "dpm_solver", "--steps", 1, 2, "--num-images", 16]
    arguments += ["--json", tmp_path / "rows.json", "--plot", tmp_path / "rows.png"]
    tables = []
    for seed in (1, 1, 2):  # each replaces the files of the one before
        status, output, errors = call("evaluate.py", *arguments, "--seed", seed)
        assert status == 0, errors
        tables.append(json.loads((tmp_path / "rows.json").read_text())["rows"])
    for words in (
        *("painted, 12 ", "encoder small.keras", "trained on these", "48 painted flowers, 16x16"),
        *("KID 0.282", "75 pixels"),
    ):
        assert words in output
    samplers = [row["sampler"] for row in tables[-1]]
    assert samplers == ["real against real", "ddpm", "ddpm", "dpm_solver", "dpm_solver"]
    for row in tables[-1]:
        assert f"{row['kid']:.5f}" in output and f"{row['fid']:.3f}" in output
    first, same, other = ([row["kid"] for row in rows] for rows in tables)
    assert first == same != other
    assert Image.open(tmp_path / "rows.png").size[0] > 1000
    assert len(list(tmp_path.iterdir())) == 2


def test_help_names_the_published_figure_and_what_is_comparable(call):
    status, output, _ = call("evaluate.py", "--help")
    output = " ".join(output.split())
    assert status == 0
    for words in ("KID 0.282 at 75 pixels", "5 steps", "0.399", "8,189", "averaged over batches"):
        assert words in output


@pytest.mark.slow
def test_train_encoder_saves_what_evaluate_can_use(tmp_path, call):
    path = tmp_path / "encoder.keras"
    arguments = ["--data-dir", "painted", "--painted", 64, "--image-size", 16, "--epochs", 1]
    arguments += ["--batch-size", 16, "--output", path]
    status, output, errors = call("train_encoder.py", *arguments)
    assert status == 0, errors
    train_encoder.parse_arguments()  # its own file may be replaced
    assert "16 species, 48 of 64 painted flowers" in output and "held out" in output
    record = json.loads(path.with_suffix(".json").read_text())
    assert record["steps"] == 3 and len(record["species"]) == 16
    assert 0 <= record["held_out_accuracy"] <= 1
    assert encode(load_encoder(path), np.zeros((2, 16, 16, 3), "uint8")).shape == (2, 128)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["encoder.json", "encoder.keras"]


def test_a_batch_larger_than_the_data_is_refused_in_one_line(tmp_path, monkeypatch, call):
    monkeypatch.chdir(tmp_path)
    arguments = ["--data-dir", "painted", "--image-size", 16, "--output", "encoder.keras"]
    arguments += ["--batch-size", 999, "--painted", 8]
    status, _, errors = call("train_encoder.py", *arguments)
    assert status == 2 and not list(tmp_path.iterdir())
    assert_one_line(errors, "6 images do not fill a batch of 999")
