"""The command lines as a reader meets them: help, pictures, and one line for each mistake."""

import functools
import importlib
import inspect
import shlex
import shutil
import signal
from urllib.request import urlopen

import numpy as np
import pytest
from conftest import ROOT, needs_tensorboard
from processes import SCRIPTS, assert_one_line, run_script, start, stop, wait_for

from diffusion.samplers import SAMPLERS
from diffusion.training.building import load_model

PLAIN = ROOT / "tests" / "files" / "before_the_move" / "plain"
COMMAND_LINES = sorted(
    path.name  # the others are modules that these import
    for path in SCRIPTS.iterdir()
    if path.suffix == ".sh" or (path.suffix == ".py" and "command.run(main)" in path.read_text())
)


@pytest.mark.slow
@pytest.mark.parametrize("script", COMMAND_LINES)
def test_every_script_explains_itself(script, tmp_path):
    status, said = run_script(script, ["--help"], tmp_path)
    assert status == 0 and script in said and "usage" in said.lower()


def test_generate_knows_the_samplers_without_a_choice_of_spacing(call):
    without = [
        name
        for name, sampler in SAMPLERS.items()
        if "spacing" not in inspect.signature(sampler).parameters
    ]
    assert list(importlib.import_module("generate").EVENLY_IN_TIME) == without


@pytest.fixture
def generate(generated):
    return functools.partial(generated, PLAIN)


def test_generate_writes_a_grid_that_follows_from_its_seed(generate):
    first, same, other = (generate("--num-images", 12, "--seed", seed) for seed in (1, 1, 2))
    assert first.shape == (2 * 128, 10 * 128, 3)  # ten in a row, each pixel 8 wide
    np.testing.assert_array_equal(first, same)
    assert (first != other).any()


@pytest.mark.slow
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


MISTAKES = [  # {} is the last word of the command line
    ("generate.py", "got '{}'", "--steps 0, --num-images -2, --interpolate 1, --seed 4294967296"),
    ("generate.py", "at most 1, got '{}'", "--eta 2, --threshold 2"),
    ("generate.py", "choose one of", "--sampler euler, --spacing even --sampler heun"),
    ("generate.py", "goes with --sampler ddim, not heun", "--eta 1 --sampler heun"),
    ("generate.py", "--spacing time: ddim", "--spacing time"),
    ("generate.py", "--num-images 2 or more", "--interpolate 10 --num-images 1"),
    ("generate.py", "no model at {}", "--model nowhere.keras"),
    ("generate.py", "{} is not a model", "--model text.keras"),
    ("generate.py", "{} is damaged or incomplete", "--model half.keras"),
    ("generate.py", "{}: name a picture", "--output flowers.h5, --output flowers.xbm"),
    ("generate.py", "{} is a folder", "--output folder"),
    ("generate.py", "{} cannot be written", "--output text.keras/a.png"),
    ("generate.py", "{} exists", "--output text.png"),
    ("evaluate.py", "got '{}'", "--steps 5 0, --num-images 3, --seed -1"),
    ("evaluate.py", "no '{}': choose one of", "--samplers euler, --split nosuch, --encoder vgg"),
    ("evaluate.py", "{}", "--encoder none.keras"),
    ("evaluate.py", "{} is damaged or incomplete", "--model half.keras"),
    ("evaluate.py", "whole.json", "--model whole.keras"),
    ("evaluate.py", "no images under {}", "--data-dir no/flowers"),
    ("evaluate.py", "is empty", "--data-dir ''"),
    ("evaluate.py", "what is read", "--data-dir folder --plot folder/a.png"),
    ("evaluate.py", "{}: name a .png file", "--plot table.csv"),
    ("evaluate.py", "{} belongs to the run", "--json RUN/run.json"),
    ("evaluate.py", "{} exists", "--json record.json"),
    ("train_encoder.py", "{}: name a .keras file", "--output encoder.h5"),
    ("train_encoder.py", "{} belongs to the run", "--output RUN/model.keras"),
    ("train_encoder.py", "{} exists", "--output whole.keras"),
    ("train_encoder.py", "record.json exists", "--output record.keras"),
    ("train_encoder.py", "at least 1, got '{}'", "--epochs 0"),
    ("ship_model.py", "belongs to the run", "RUN RUN/model.keras, RUN RUN/run.keras"),
    ("ship_model.py", "{} exists", "RUN whole.keras, RUN encoder.keras"),  # one has an optimizer
    ("ship_model.py", "no model at RUN/none", "RUN/none a.keras"),
    ("ship_model.py", "what is read", "flowers.keras flowers.keras"),
    ("tensorboard.sh", "{}", "no/such/folder"),
    ("train.py", "got '{}'", "--epochs 0, --max-steps 0, --sample-every -1, --seed 4294967296"),
    ("train.py", "got '{}'", "--learning-rate nan"),
    ("train.py", "no '{}': choose one of", "--preset hug, --precision half, --objective eps"),
    ("train.py", "no '{}': choose one of", "--loss-weighting snr, --loss l1"),
    ("train.py", "no images under {}", "--data-dir no/flowers"),
    ("train.py", "{} cannot be written", "--output text.png"),
    ("train.py", "must be a folder, got ''", "--output ''"),
    ("train.py", "text.png", "--output text.png/run"),
    ("train.py", "--process-id goes with --distribute", "--process-id 1"),
    ("train.py", "no '{}': choose one of", "--network unnet"),
    ("train.py", "got '{}'", "--gradient-norm -1, --label-dropout -1"),
    ("train.py", "--label-dropout goes with --labels", "--label-dropout 0.2"),
    ("train.py", "below 1, got 1.0", "--labels --label-dropout 1"),
    (
        "train.py",
        "half_size_epochs must be at least 0 and below epochs (7), got 9",
        "--half-size-epochs 9",
    ),
]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("script", "options", "words"),
    [(script, line, words) for script, words, lines in MISTAKES for line in lines.split(", ")],
)
def test_a_mistake_is_one_line_before_keras_is_imported_and_nothing_changes(
    script, options, words, tmp_path, monkeypatch
):
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.chdir(home)
    shutil.copytree(PLAIN, "RUN")
    shutil.copy(PLAIN / "model.keras", "whole.keras")
    for name in ("flowers", "encoder"):
        for suffix in (".keras", ".json"):
            shutil.copy(ROOT / "models" / f"{name}-64{suffix}", name + suffix)
    (home / "half.keras").write_bytes((PLAIN / "model.keras").read_bytes()[:30_000])
    (home / "folder").mkdir()
    for name in ("text.keras", "text.png", "folder/photo.jpg", "record.json"):
        (home / name).write_text('{"a": 1}')
    before = contents(home)
    # Importing Keras with this backend would end in another error.
    options = shlex.split(options)
    status, said = run_script(script, options, tmp_path, KERAS_BACKEND="none")
    assert status == 2
    assert_one_line(said, words.format(options[-1]))
    assert contents(home) == before


def contents(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_model_of_nan_weights_writes_no_picture(tmp_path, call):
    model = load_model(PLAIN)
    for weight in model.ema_network.weights:
        weight.assign(np.full(weight.shape, np.nan))
    model.save(tmp_path / "nan.keras")
    arguments = "--model", tmp_path / "nan.keras", "--output", tmp_path / "nan.png"
    status, _, errors = call("generate.py", *arguments)
    assert status == 2 and not (tmp_path / "nan.png").exists()
    assert_one_line(errors, "not finite")


def test_ship_model_replaces_an_earlier_export_and_leaves_the_run_alone(tmp_path, call):
    shutil.copytree(PLAIN, tmp_path / "run")
    before = contents(tmp_path / "run")
    output = tmp_path / "small.keras"
    for _ in range(2):
        status, printed, errors = call("ship_model.py", tmp_path / "run", output)
        assert status == 0, errors
        assert str(output) in printed
    assert contents(tmp_path / "run") == before
    assert output.is_file() and output.with_suffix(".json").is_file()


@needs_tensorboard
@pytest.mark.slow
def test_tensorboard_shows_a_run(trained, tmp_path):
    command = "bash", SCRIPTS / "tensorboard.sh", trained.folder, "--port", 0
    process = start(command, tmp_path)
    try:
        words = next(line for line in process.stderr if "http://" in line).split()
        plugins = next(word for word in words if word.startswith("http://")) + "data/plugin"

        def tags(kind):
            return urlopen(f"{plugins}/{kind}/tags", timeout=10).read().decode()

        wait_for(lambda: "samples" in tags("images"))
        assert "epoch_loss" in tags("scalars")
    finally:
        stop(process, signal.SIGKILL)
