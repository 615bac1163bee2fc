"""Evaluation: what is held out, the table of samplers and steps, and its command lines."""

import dataclasses
import json
import subprocess
import sys

import keras
import numpy as np
import pytest
from conftest import ROOT
from PIL import Image

sys.path.insert(0, str(ROOT / "scripts"))

import command
import evaluate as evaluate_script
import train_encoder as train_script

from diffusion.data.holdout import hold_out, seen_in_training
from diffusion.evaluation.classifier import build_classifier, save_classifier
from diffusion.evaluation.distances import frechet_distance, kernel_distance
from diffusion.evaluation.evaluate import draw, evaluate, measure, real_against_real, table


def averages(images):
    """An encoder without weights: the colours of a 2x2 picture, 12 features."""
    half = keras.ops.shape(images)[1] // 2
    small = keras.ops.average_pool(images, half, half)  # on JAX Keras needs the strides said
    return keras.ops.reshape(small, (-1, 12))


def with_splits(flowers, splits):
    return dataclasses.replace(flowers, splits=np.array(splits, "U5"), name="folder")


# --- what is held out, and whether it was seen ---


def test_what_is_held_out_is_never_learnt_from_and_always_the_same(painted):
    kept, held, words = hold_out(painted)
    assert sorted([*kept, *held]) == list(range(len(painted)))
    assert len(held) == len(painted) // 4 and "each fourth picture of painted, 12" in words
    np.testing.assert_array_equal(held, hold_out(painted)[1])


def test_where_there_are_splits_one_of_them_is_held_out(painted):
    flowers = with_splits(painted, ["train"] * 30 + ["valid"] * 10 + ["test"] * 8)
    kept, held, words = hold_out(flowers)
    assert held.tolist() == list(range(30, 40)) and len(kept) == 38
    assert words == "the valid split of folder, 10 pictures"
    with pytest.raises(ValueError, match="folder has no split 'val': choose one of test, train, v"):
        hold_out(flowers, "val")


@pytest.mark.parametrize(
    ("data", "words"),
    [
        ("7,370 flowers from folder, 64x64, centre crop", "on these pictures too"),
        ("10 of 40 flowers from folder, 64x64, centre crop, splits valid", "these pictures too"),
        ("30 of 40 flowers from folder, 64x64, centre crop, splits train", "not trained on these"),
        ("40 flowers from folder-2, 64x64, centre crop", "on other pictures"),
        ("48 painted flowers, 16x16, seed 0", "on other pictures"),
    ],
)
def test_the_record_tells_whether_a_model_has_seen_what_is_held_out(data, words, painted):
    flowers = with_splits(painted, ["train"] * 30 + ["valid"] * 18)
    said = seen_in_training({"data": data}, flowers)
    assert words in said and data in said


def test_painted_flowers_of_another_seed_are_other_pictures(trained, painted):
    assert "on these pictures too" in seen_in_training(trained.record, painted)
    other = dataclasses.replace(painted, description="48 painted flowers, 16x16, seed 1")
    assert "on other pictures" in seen_in_training(trained.record, other)


# --- the rows ---


def features(seed, count, shift=0.0):
    return np.random.default_rng(seed).normal(shift, 1, (count, 4))


def test_a_row_holds_what_the_distances_say():
    real, generated = features(0, 130), features(1, 90, 0.5)
    row = measure(real, generated, batch_size=32)
    kid, error = kernel_distance(real, generated)
    np.testing.assert_allclose([row["kid"], row["kid_error"]], [kid, error], rtol=1e-12)
    np.testing.assert_allclose(row["fid"], frechet_distance(real, generated), rtol=1e-12)
    assert (row["real"], row["generated"]) == (130, 90)
    assert abs(row["kid_batches"] - kid) < 4 * error  # two batches of 32, then the rest is left
    assert row["kid_batches"] != kid


def test_a_batch_as_large_as_the_sample_gives_the_samples_estimate():
    real, generated = features(0, 40), features(1, 40, 0.5)
    row = measure(real, generated, batch_size=40)
    np.testing.assert_allclose(row["kid_batches"], row["kid"], rtol=1e-9)


def test_real_against_real_compares_each_picture_once_and_finds_no_distance():
    floors = [real_against_real(features(seed, 201)) for seed in range(40)]
    assert all((row["real"], row["generated"]) == (100, 101) for row in floors)
    kids = [row["kid"] for row in floors]
    assert abs(np.mean(kids)) < 4 * np.std(kids) / np.sqrt(len(kids))
    assert min(row["precision"] for row in floors) > 0.8


def test_drawing_is_in_batches_from_one_noise_which_the_seed_decides(trained):
    model = trained.model
    expected = model.generate(10, 2, seed=3)
    np.testing.assert_allclose(draw(model, "ddim", 2, 10, 3, batch_size=4), expected, atol=1e-3)
    noisy = draw(model, "ddpm", 3, 8, 3, batch_size=4)
    np.testing.assert_array_equal(noisy, draw(model, "ddpm", 3, 8, 3, batch_size=4))


def test_there_is_a_row_for_each_sampler_and_number_of_steps(trained, painted):
    done = []
    options = {"samplers": ("ddim", "heun"), "steps": (1, 3), "num_images": 12}
    rows = evaluate(trained.model, averages, painted.images, **options, on_pictures=done.append)
    asked = [(row["sampler"], row["steps"]) for row in rows]
    assert asked[1:] == [("ddim", 1), ("ddim", 3), ("heun", 1), ("heun", 3)]
    assert rows[0]["sampler"] == "real against real" and rows[0]["real"] == 24
    assert sum(done) == len(painted.images) + 12 * 4
    assert all(row["kid"] > rows[0]["kid"] for row in rows[1:])  # two epochs draw no flowers
    lines = table(rows).splitlines()
    assert len(lines) == 6 and len({len(line) for line in lines}) == 1
    assert lines[1].startswith("real against real") and f"{rows[4]['kid']:.5f}" in lines[5]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"samplers": ("ddim", "euler")}, "no sampler 'euler': choose from ddim"),
        ({"steps": (5, 0)}, "steps must be a whole number of at least 1, got 0"),
        ({"num_images": 7}, "num_images must be a whole number of at least 8, got 7"),
    ],
)
def test_what_cannot_be_evaluated_is_named_before_anything_is_drawn(
    options, words, trained, painted
):
    with pytest.raises(ValueError, match=words):
        evaluate(trained.model, None, painted.images, **options)


def test_pictures_too_few_or_of_another_size_are_named(trained, painted):
    with pytest.raises(ValueError, match="7 real pictures are too few: 8 or more"):
        evaluate(trained.model, averages, painted.images[:7])
    with pytest.raises(ValueError, match=r"draws pictures of 16x16, the real ones are 8x8: load"):
        evaluate(trained.model, averages, painted.images[:, :8, :8])


# --- the command lines ---


@pytest.fixture(scope="module")
def encoder_file(tmp_path_factory):
    path = tmp_path_factory.mktemp("encoder") / "small.keras"
    keras.utils.set_random_seed(0)
    save_classifier(build_classifier(16, 16, (4, 8)), path, {})
    return path


def call(script, arguments, monkeypatch, capsys):
    """Call a script in this process: (exit status, what it printed, what it complained of)."""
    monkeypatch.setattr(sys, "argv", ["script.py", *map(str, arguments)])
    with pytest.raises(SystemExit) as stopped:
        command.run(script.main)
    return stopped.value.code or 0, *capsys.readouterr()


def test_evaluate_draws_compares_prints_and_plots(trained, encoder_file, tmp_path):
    arguments = ["--model", trained.folder, "--data-dir", "painted", "--encoder", encoder_file]
    arguments += ["--samplers", "ddim", "dpm_solver", "--steps", 1, 2, "--num-images", 16]
    arguments += ["--json", tmp_path / "rows.json", "--plot", tmp_path / "rows.png"]
    finished = subprocess.run(
        [sys.executable, ROOT / "scripts" / "evaluate.py", *map(str, arguments)],
        capture_output=True,
        text=True,
    )
    assert finished.returncode == 0, finished.stderr
    said = finished.stdout
    assert "each fourth picture of painted, 12 pictures, by the encoder small.keras" in said
    assert "trained on these pictures too (48 painted flowers, 16x16, seed 0)" in said
    assert "KID 0.282" in said and "75 pixels" in said
    saved = json.loads((tmp_path / "rows.json").read_text())
    assert [row["sampler"] for row in saved["rows"]] == [
        "real against real",
        *("ddim", "ddim", "dpm_solver", "dpm_solver"),
    ]
    for row in saved["rows"]:
        assert f"{row['kid']:.5f}" in said and f"{row['fid']:.3f}" in said
    assert Image.open(tmp_path / "rows.png").size[0] > 1000
    assert len(list(tmp_path.iterdir())) == 2


def test_the_same_seed_gives_the_same_table(trained, encoder_file, tmp_path, monkeypatch, capsys):
    def rows(seed):
        arguments = ["--model", trained.folder, "--data-dir", "painted", "--steps", 1]
        arguments += ["--encoder", encoder_file, "--samplers", "ddpm", "--num-images", 8]
        arguments += ["--json", tmp_path / "a.json", "--plot", tmp_path / "a.png", "--seed", seed]
        assert call(evaluate_script, arguments, monkeypatch, capsys)[0] == 0
        return [row["kid"] for row in json.loads((tmp_path / "a.json").read_text())["rows"]]

    first = rows(1)
    assert first == rows(1) and first != rows(2)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--samplers", "euler"], "no sampler 'euler': choose from ddim"),
        (["--steps", "0"], "steps must be a whole number of at least 1, got 0"),
        (["--num-images", "3"], "at least 8, got 3"),
        (["--seed", "-1"], "--seed must be 0 or more, got -1"),
        (["--encoder", "vgg"], "no encoder 'vgg': choose flowers, inception-75, inception-299"),
        (["--encoder", "none.keras"], "no encoder at none.keras"),
        (["--model", "nowhere.keras"], "no model at nowhere.keras"),
        (["--data-dir", "no/flowers"], "no images under no/flowers"),
        (["--plot", "table.csv"], "--plot table.csv: name a .png file"),
    ],
)
def test_a_mistake_is_one_line_and_nothing_is_written(
    arguments, words, trained, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    given = ["--model", trained.folder, "--data-dir", "painted", *arguments]
    status, _, complaint = call(evaluate_script, given, monkeypatch, capsys)
    assert status == 2 and complaint.startswith("error: ") and words in complaint
    assert complaint.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_help_names_the_published_figure_and_what_is_comparable(monkeypatch, capsys):
    status, said, _ = call(evaluate_script, ["--help"], monkeypatch, capsys)
    said = " ".join(said.split())
    assert status == 0
    for words in ("KID 0.282 at 75 pixels", "5 steps", "0.399", "8,189", "averaged over batches"):
        assert words in said


def test_train_encoder_saves_what_evaluate_can_use(tmp_path, monkeypatch, capsys):
    path = tmp_path / "encoder.keras"
    arguments = ["--data-dir", "painted", "--painted", 64, "--image-size", 16, "--epochs", 1]
    arguments += ["--batch-size", 16, "--output", path]
    status, said, complaint = call(train_script, arguments, monkeypatch, capsys)
    assert status == 0, complaint
    assert "16 species, 48 of 64 painted flowers" in said and "of those held out" in said
    record = json.loads(path.with_suffix(".json").read_text())
    assert record["steps"] == 3 and len(record["species"]) == 16
    assert 0 <= record["held_out_accuracy"] <= 1
    from diffusion.evaluation.encoder import encode, load_encoder

    assert encode(load_encoder(path), np.zeros((2, 16, 16, 3), "uint8")).shape == (2, 128)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["encoder.json", "encoder.keras"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--output", "encoder.h5"], "--output encoder.h5: name a .keras file"),
        (["--epochs", "0"], "--epochs must be 1 or more, got 0"),
        (["--batch-size", "999", "--painted", "8"], "6 pictures do not fill a batch of 999"),
        (["--data-dir", "no/flowers"], "no images under no/flowers"),
    ],
)
def test_an_encoder_that_cannot_be_trained_is_one_line(
    arguments, words, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    given = ["--data-dir", "painted", "--image-size", "16", "--output", "encoder.keras"]
    status, _, complaint = call(train_script, [*given, *arguments], monkeypatch, capsys)
    assert status == 2 and complaint.startswith("error: ") and words in complaint
    assert complaint.count("\n") == 1
    assert not list(tmp_path.iterdir())
