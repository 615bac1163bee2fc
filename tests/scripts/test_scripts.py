"""The command lines as a reader meets them: help, pictures, and one line for each mistake."""

import inspect
import os
import shutil
import subprocess
import time
from urllib.error import URLError
from urllib.request import urlopen

import numpy as np
import pytest
from calling import assert_one_line, call, module_of, run
from conftest import ROOT, needs_tensorboard
from PIL import Image

from diffusion.samplers import SAMPLERS
from diffusion.training.building import load_model

PLAIN = ROOT / "tests" / "files" / "before_the_move" / "plain"
SCRIPTS = sorted(
    path.name  # the others are modules that these import
    for path in (ROOT / "scripts").iterdir()
    if path.suffix == ".sh" or (path.suffix == ".py" and "command.run(main)" in path.read_text())
)


@pytest.mark.parametrize("script", SCRIPTS)
def test_every_script_explains_itself(script):
    finished = run(script, "--help")
    assert finished.returncode == 0, finished.stderr
    assert script in finished.stdout and "usage" in finished.stdout.lower()


def test_generate_knows_the_samplers_without_a_choice_of_spacing():
    without = [
        name
        for name, sampler in SAMPLERS.items()
        if "spacing" not in inspect.signature(sampler).parameters
    ]
    assert list(module_of("generate.py").EVENLY_IN_TIME) == without


@pytest.fixture
def generate(monkeypatch, capsys, tmp_path):
    """Call generate.py with these options and return the picture as an array."""

    def picture(*options):
        output = tmp_path / "generated.png"  # replaced each time
        arguments = ["--model", PLAIN, "--steps", 2, "--output", output, *options]
        status, printed, errors = call("generate.py", arguments, monkeypatch, capsys)
        assert status == 0, errors
        assert str(output) in printed
        return np.asarray(Image.open(output))

    return picture


def test_generate_writes_a_grid_that_follows_from_its_seed(generate):
    first, same, other = (generate("--num-images", 12, "--seed", seed) for seed in (1, 1, 2))
    assert first.shape == (2 * 128, 10 * 128, 3)  # ten in a row, each pixel 8 wide
    np.testing.assert_array_equal(first, same)
    assert (first != other).any()


def test_the_largest_seed_eta_and_spacing_are_accepted(generate):
    ddim = [generate("--num-images", 1, "--seed", 2**32 - 1, "--eta", eta) for eta in (0, 1)]
    assert (ddim[0] != ddim[1]).any()
    heun = [
        generate("--num-images", 1, "--sampler", "heun", "--steps", 5, "--spacing", spacing)
        for spacing in ("time", "log_snr")
    ]
    assert (heun[0] != heun[1]).any()


def test_generate_walks_between_flowers_and_ends_where_it_began(generate):
    walks = generate("--num-images", 3, "--interpolate", 4)
    rows = walks.reshape(3, 128, 4, 128, 3).transpose(0, 2, 1, 3, 4)
    for row in range(3):  # the last of a row is the first of the next, and of the last row too
        # Rounding may differ by the place in the batch.
        np.testing.assert_allclose(rows[row, -1].astype(int), rows[(row + 1) % 3, 0], atol=1)
    assert (np.abs(rows[0, 0].astype(int) - rows[0, 1]) > 5).any()


GENERATE, EVALUATE = ("generate.py",), ("evaluate.py", "--data-dir", "painted")
ENCODER, SHIP = ("train_encoder.py", "--data-dir", "painted"), ("ship_model.py", "RUN")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((*GENERATE, "--model", "nowhere.keras"), "no model at nowhere.keras"),
        ((*GENERATE, "--model", "text.keras"), "text.keras is not a model"),
        ((*GENERATE, "--model", "half.keras"), "half.keras is damaged or incomplete"),
        ((*GENERATE, "--steps", "0"), "got '0'"),
        ((*GENERATE, "--num-images", "-2"), "got '-2'"),
        ((*GENERATE, "--interpolate", "1"), "got '1'"),
        ((*GENERATE, "--interpolate", "10", "--num-images", "1"), "--num-images 2 or more"),
        ((*GENERATE, "--eta", "2"), "at least 0 and at most 1, got '2'"),
        ((*GENERATE, "--eta", "1", "--sampler", "heun"), "goes with --sampler ddim, not heun"),
        ((*GENERATE, "--sampler", "euler"), "no 'euler': choose one of ddim, ddpm"),
        ((*GENERATE, "--spacing", "time"), "--spacing time: ddim"),
        ((*GENERATE, "--spacing", "even", "--sampler", "heun"), "one of log_snr, time"),
        ((*GENERATE, "--threshold", "2"), "above 0 and at most 1, got '2'"),
        ((*GENERATE, "--seed", str(2**32)), f"at most {2**32 - 1}, got '{2**32}'"),
        ((*GENERATE, "--output", "flowers.xyz"), "flowers.xyz"),
        ((*GENERATE, "--output", "flowers.h5"), "flowers.h5"),
        ((*GENERATE, "--output", "flowers.xbm"), "flowers.xbm"),
        ((*GENERATE, "--output", "folder"), "folder is a folder"),
        ((*GENERATE, "--output", "text.keras/a.png"), "cannot be written"),
        ((*GENERATE, "--output", "text.png"), "text.png exists"),
        ((*EVALUATE, "--samplers", "euler"), "no 'euler': choose one of ddim"),
        ((*EVALUATE, "--steps", "5", "0"), "got '0'"),
        ((*EVALUATE, "--num-images", "3"), "at least 8, got '3'"),
        ((*EVALUATE, "--seed", "-1"), "got '-1'"),
        ((*EVALUATE, "--split", "nosuch"), "no 'nosuch': choose one of train, valid, test"),
        ((*EVALUATE, "--encoder", "vgg"), "no 'vgg': choose one of flowers, inception-75"),
        ((*EVALUATE, "--encoder", "none.keras"), "none.keras"),
        ((*EVALUATE, "--model", "half.keras"), "half.keras is damaged or incomplete"),
        ((*EVALUATE, "--model", "whole.keras"), "whole.json"),
        (("evaluate.py", "--data-dir", "no/flowers"), "no images under no/flowers"),
        (("evaluate.py", "--data-dir", ""), "is empty"),
        (("evaluate.py", "--data-dir", "folder", "--plot", "folder/a.png"), "what is read"),
        ((*EVALUATE, "--plot", "table.csv"), "table.csv: name a .png file"),
        ((*EVALUATE, "--json", "RUN/run.json"), "run.json belongs to the run"),
        ((*EVALUATE, "--json", "record.json"), "record.json exists"),
        ((*ENCODER, "--output", "encoder.h5"), "encoder.h5: name a .keras file"),
        ((*ENCODER, "--output", "RUN/model.keras"), "model.keras belongs to the run"),
        ((*ENCODER, "--output", "whole.keras"), "whole.keras exists"),
        ((*ENCODER, "--output", "record.keras"), "record.json exists"),
        ((*ENCODER, "--epochs", "0"), "at least 1, got '0'"),
        ((*SHIP, "RUN/model.keras"), "model.keras belongs to the run"),
        ((*SHIP, "RUN/run.keras"), "run.json belongs to the run"),
        ((*SHIP, "whole.keras"), "whole.keras exists"),  # a checkpoint: it has an optimizer
        ((*SHIP, "encoder.keras"), "encoder.keras exists"),
        (("ship_model.py", "RUN/none", "a.keras"), "no model at RUN/none"),
        (("ship_model.py", "whole.keras", "a.keras"), "whole.json"),
        (("ship_model.py", "flowers.keras", "flowers.keras"), "what is read"),
        (("tensorboard.sh", "no/such/folder"), "no/such/folder"),
    ],
)
def test_a_mistake_is_one_line_before_keras_is_imported_and_nothing_changes(
    arguments, words, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    shutil.copytree(PLAIN, tmp_path / "RUN")
    shutil.copy(PLAIN / "model.keras", "whole.keras")
    for name in ("flowers", "encoder"):
        for suffix in (".keras", ".json"):
            shutil.copy(ROOT / "models" / f"{name}-64{suffix}", name + suffix)
    (tmp_path / "half.keras").write_bytes((PLAIN / "model.keras").read_bytes()[:30_000])
    for name in ("text.keras", "text.png", "folder/photo.jpg", "record.json"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text('{"a": 1}')
    before = contents(tmp_path)
    # Importing Keras with this backend would end in another error.
    finished = run(*arguments, **os.environ | {"KERAS_BACKEND": "none"})
    assert finished.returncode == 2
    assert_one_line(finished.stderr, words)
    assert contents(tmp_path) == before


def contents(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--preset", "hug"], "'hug'"),
        (["--epochs", "0"], "0"),
        (["--max-steps", "0"], "0"),
        (["--data-dir", "no/flowers/here"], "no/flowers/here"),
        (["--preset", "tiny", "--precision", "half"], "'half'"),
        (["--preset", "tiny", "--objective", "eps"], "'eps'"),
    ],
)
def test_a_mistake_in_training_is_one_line(arguments, words, tmp_path, monkeypatch, capsys):
    output = ["--output", tmp_path / "run"]
    status, _, errors = call("train.py", [*arguments, *output], monkeypatch, capsys)
    assert status == 2 and not list(tmp_path.iterdir())
    assert_one_line(errors, words)


def test_a_model_of_nan_weights_writes_no_picture(tmp_path, monkeypatch, capsys):
    model = load_model(PLAIN)
    for weight in model.ema_network.weights:
        weight.assign(np.full(weight.shape, np.nan))
    model.save(tmp_path / "nan.keras")
    arguments = ["--model", tmp_path / "nan.keras", "--output", tmp_path / "nan.png"]
    status, _, errors = call("generate.py", arguments, monkeypatch, capsys)
    assert status == 2 and not (tmp_path / "nan.png").exists()
    assert_one_line(errors, "not finite")


def test_ship_model_replaces_an_earlier_export_and_leaves_the_run_alone(
    tmp_path, monkeypatch, capsys
):
    shutil.copytree(PLAIN, tmp_path / "run")
    before = contents(tmp_path / "run")
    output = tmp_path / "small.keras"
    for _ in range(2):
        status, printed, errors = call(
            "ship_model.py", [tmp_path / "run", output], monkeypatch, capsys
        )
        assert status == 0, errors
        assert str(output) in printed
    assert contents(tmp_path / "run") == before
    assert output.is_file() and output.with_suffix(".json").is_file()


@needs_tensorboard
@pytest.mark.slow
def test_tensorboard_shows_a_run(trained):
    with subprocess.Popen(
        ["bash", ROOT / "scripts" / "tensorboard.sh", trained.folder, "--port", "0"],
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            line = next(line for line in process.stderr if "http://" in line)
            address = next(word for word in line.split() if word.startswith("http://"))
            for _ in range(50):
                try:
                    tags = urlopen(f"{address}data/plugin/images/tags", timeout=10).read().decode()
                    if "samples" in tags:
                        break
                except URLError:
                    pass
                time.sleep(0.2)
            assert "samples" in tags
            scalars = urlopen(f"{address}data/plugin/scalars/tags", timeout=10).read().decode()
            assert "epoch_loss" in scalars
        finally:
            process.kill()
