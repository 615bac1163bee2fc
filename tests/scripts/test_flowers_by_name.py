"""Flowers by name on the command line: what is asked for is drawn, named and measured."""

import functools
import json
import os
import subprocess
import sys
from types import SimpleNamespace

import evaluate
import keras
import numpy as np
import pytest
from conftest import ROOT
from PIL import Image
from processes import assert_one_line, run_script

from diffusion.data.species import SPECIES
from diffusion.evaluation.classifier import build_classifier, save_classifier
from diffusion.latents import initial_noise, walks
from diffusion.support.files import captions, save_image_grid
from diffusion.training.building import load_model

CELL = 128  # the side of an image in a picture: each pixel of 16x16 is 8 wide


@pytest.fixture
def generate(generated, by_name):
    return functools.partial(generated, by_name)


@pytest.fixture(scope="module")
def model(by_name):
    return load_model(by_name)


def in_picture(images):
    """Images (N, 16, 16, 3) as the cells of a picture have them, and only every eighth pixel."""
    return np.round(images * 255).astype(int)


def cells(picture, columns, height=CELL):
    """The images of a picture whose rows are `height` pixels high, without their names."""
    rows = len(picture) // height
    cells = picture.reshape(rows, height, columns, CELL, 3).swapaxes(1, 2)[:, :, 4:CELL:8, 4::8]
    return cells.reshape(rows * columns, 16, 16, 3).astype(int)


def assert_alike(images, others):
    """Assert that images agree but for rounding, which differs with the place in a batch."""
    assert np.abs(images - others).mean() < 2


def test_one_name_draws_ten_of_it_at_the_default_scale(generate, model):
    drawn = cells(generate("--label", "Water Lily", "--seed", 3), 10)
    expected = model.generate(10, 2, seed=3, labels="water lily", guidance=2.0)
    assert_alike(drawn, in_picture(expected))
    other = model.generate(10, 2, seed=3, labels="rose", guidance=2.0)
    assert np.abs(in_picture(other) - drawn).mean() > 5


def test_names_and_numbers_have_a_row_each_at_a_scale_and_in_an_interval(generate, model):
    names = "--label", "rose", SPECIES.index("tulip"), "--label", "iris"  # repeated or in a list
    picture = generate(*names, "--num-images", 2, "--guidance", 4, "--guidance-interval", 0.5, 0.9)
    labels = [name for name in ("rose", "tulip", "iris") for _ in range(2)]
    settings = {"labels": labels, "guidance": 4.0, "guidance_interval": (0.5, 0.9)}
    expected = in_picture(model.generate(6, 2, seed=0, **settings))
    assert_alike(cells(picture, 2, len(picture) // 3), expected)


def test_all_draws_one_of_each_with_dark_text_below_every_image(generate, model):
    picture = generate("--label", "all")
    band = captions(SPECIES, CELL)
    height = CELL + band.shape[1]
    assert picture.shape == (2 * height, 10 * CELL, 3)
    for number in range(20):
        row, column = divmod(number, 10)
        top, left = row * height + CELL, column * CELL
        below = picture[top : top + band.shape[1], left : left + CELL]
        text = below.min(axis=2) < 100
        if number < 16:
            np.testing.assert_array_equal(below, band[number])
            assert 30 < text.sum() < text.size / 4
            assert not text[:, :2].any() and not text[:, -2:].any()  # no name runs into the next
        else:
            assert (below == 255).all()
    expected = model.generate(16, 2, seed=0, labels=range(16), guidance=2.0)
    assert_alike(cells(picture, 10, height)[:16], in_picture(expected))


def test_without_a_label_varied_flowers_are_drawn_by_names_that_follow_from_the_seed(generate):
    names = [bands(generate("--num-images", 4, "--seed", seed)) for seed in (1, 2)]
    assert names[0] != names[1]
    for seed, drawn in zip((1, 2), names, strict=True):
        assert drawn == np.random.default_rng(seed).permutation(16)[:4].tolist()


def bands(picture):
    """Which of the painted flowers' names is below each image of a picture of one row."""
    height = len(picture) - CELL
    below = picture[CELL:].reshape(height, -1, CELL, 3).swapaxes(0, 1)
    known = [band[:height].tobytes() for band in captions(SPECIES, CELL)]
    return [known.index(band.tobytes()) for band in below]


def test_a_walk_keeps_one_name(generate, model):
    options = "--num-images", 2, "--interpolate", 3
    noise = walks(initial_noise(2, 16, 0), 3)
    for label, settings in (
        (("--label", "rose"), {"labels": "rose", "guidance": 2.0}),
        ((), {}),
    ):
        expected = model.generate(initial_noise=noise, steps=2, **settings)
        assert_alike(cells(generate(*options, *label), 3), in_picture(expected))


def test_names_below_pictures_are_wrapped_or_shortened_to_the_width(tmp_path):
    names = ["rose", "hard-leaved pocket orchid", "x" * 99, "a b " * 40, ""]
    band = captions(names, 128) < 100
    wide = [np.flatnonzero(text.any(axis=(0, 2))) for text in band]
    assert all(np.ptp(columns) <= 120 for columns in wide[:4]) and not len(wide[4])
    filled = [text.any(axis=(1, 2)) for text in band]
    lines = [np.diff(rows.astype(int)).tolist().count(1) for rows in filled[:3]]
    assert lines == [1, 2, 1]  # blocks of text, top to bottom
    umlauts = captions(["ö", "ß"], 128)  # a font without them draws the same box for both
    assert (umlauts[0] != umlauts[1]).any()
    save_image_grid(tmp_path / "a.png", np.ones((5, 16, 16, 3)), None, 8, names)
    assert Image.open(tmp_path / "a.png").size == (5 * 128, 128 + band.shape[1])


# --- mistakes, and what needs no Keras ---

PLAIN = ROOT / "tests" / "files" / "before_the_move" / "plain"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--label", "sunflwer"], "no flower named 'sunflwer': did you mean sunflower?"),
        (["--label", "rose", "water"], "no flower named 'water': did you mean water lily?"),
        (["--label", "xyzzy"], "--label list prints all names"),
        (["--label", "16"], "no label 16: choose a name, or a whole number from 0 to 15"),
        (["--label", "-1"], "no label -1"),
        (["--label", "all", "rose"], "'all' and 'list' go alone"),
        (["--guidance", "nan"], "--guidance: must be a number at least 0, got 'nan'"),
        (["--guidance-interval", "0.9", "0.2"], "the lower noise rate first"),
        (["--guidance-interval", "0", "1.5"], "at most 1, got '1.5'"),
        (["--label", "rose", "iris", "--interpolate"], "one --label, got 2"),
        (["--guidance", "3", "--interpolate"], "--guidance needs a --label"),
        (["--classifier", "nowhere.keras"], "no classifier at nowhere.keras"),
        (["--label", "rose", "--model", PLAIN], "--label needs names"),
        (["--guidance", "3", "--model", PLAIN], "--guidance needs names"),
        (["--label", "list", "--model", PLAIN], "--label needs names"),
    ],
)
def test_a_mistake_is_one_line_before_keras_is_imported(options, words, by_name, tmp_path):
    options = ["--model", by_name, "--output", tmp_path / "a.png", *options]
    # Importing Keras with this backend would end in another error.
    status, said = run_script("generate.py", options, tmp_path, KERAS_BACKEND="none")
    assert status == 2 and not (tmp_path / "a.png").exists()
    assert_one_line(said, words)


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="needs a pipe whose reader leaves")
def test_a_reader_that_leaves_early_is_no_error():
    reader, writer = os.pipe()
    os.close(reader)
    command = [sys.executable, ROOT / "scripts/generate.py", "--label", "list"]
    done = subprocess.run(command, stdout=writer, stderr=subprocess.PIPE, text=True, timeout=120)
    os.close(writer)
    assert (done.returncode, done.stderr) == (141, "")


def test_list_prints_numbers_and_names_without_keras(by_name, tmp_path):
    options = ["--model", by_name, "--label", "list"]
    status, said = run_script("generate.py", options, tmp_path, KERAS_BACKEND="none")
    lines = [line.split(maxsplit=1) for line in said.splitlines()]
    assert status == 0 and lines == [[str(n), name] for n, name in enumerate(SPECIES)]


# --- evaluate.py ---


@pytest.fixture(scope="module")
def encoder_file(tmp_path_factory):
    """An encoder whose classifier knows the painted flowers, but nothing about them."""
    path = tmp_path_factory.mktemp("encoder") / "small.keras"
    keras.utils.set_random_seed(0)
    save_classifier(build_classifier(16, 16, (4, 8)), path, {"species": list(SPECIES[::-1])})
    return path


@pytest.mark.slow
def test_evaluate_has_a_row_for_each_scale_with_the_share_named(
    by_name, encoder_file, tmp_path, call
):
    arguments = ["--model", by_name, "--data-dir", "painted", "--steps", 1, 2]
    arguments += ["--samplers", "ddim", "--num-images", 8, "--guidance", 1, 3]
    arguments += ["--guidance-interval", 0.2, 0.8, "--encoder", encoder_file]
    arguments += ["--json", tmp_path / "rows.json", "--plot", tmp_path / "rows.png"]
    status, output, errors = call("evaluate.py", *arguments)
    assert status == 0, errors
    rows = json.loads((tmp_path / "rows.json").read_text())["rows"]
    settings = [(row["steps"], row["guidance"]) for row in rows]
    assert settings == [(None, None), (1, 1), (1, 3), (2, 1), (2, 3)]
    assert "noise rates from 0.2 to 0.8" in output and "guidance" in output
    assert all(f"{row['named']:.3f}" in output for row in rows)
    assert Image.open(tmp_path / "rows.png").size[0] > 2000  # five measures


def test_a_classifier_of_other_flowers_checks_no_names_and_evaluate_says_why(painted, model):
    arguments = SimpleNamespace(encoder="flowers", guidance=None, guidance_interval=None)
    options, (line,) = evaluate.names(arguments, model, painted, np.arange(16))
    assert options["classifier"] is None and options["guidance"] == [2.0]
    assert options["labels"] == [SPECIES[label] for label in painted.labels[:16]]
    assert "not measured, the classifier does not know" in line  # it knows Oxford's


def test_evaluate_refuses_guidance_without_names(refusal):
    assert "needs names" in refusal(evaluate.main, "--model", PLAIN, "--guidance", 2)
    assert "lower noise rate" in refusal(evaluate.main, "--guidance-interval", 0.5, 0.1)
