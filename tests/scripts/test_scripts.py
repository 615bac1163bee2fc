"""The command lines as a reader meets them: help, pictures, and one line for each mistake."""

import shutil
import signal
from urllib.request import urlopen

import numpy as np
import pytest
from conftest import ROOT, needs_tensorboard
from PIL import Image
from processes import SCRIPTS, assert_one_line, run_script, start, stop, wait_for

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


@pytest.fixture
def generate(call, tmp_path):
    """Call generate.py with these options and return the picture as an array."""

    def picture(*options):
        output = tmp_path / "generated.png"  # replaced each time
        arguments = "--model", PLAIN, "--steps", 2, "--output", output, *options
        status, printed, errors = call("generate.py", *arguments)
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


PAINTED = ("--data-dir", "painted")
TRAIN, GENERATE, EVALUATE = ("train.py",), ("generate.py",), ("evaluate.py", *PAINTED)
ENCODER, SHIP = ("train_encoder.py", *PAINTED), ("ship_model.py", "RUN")


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
        (("ship_model.py", "flowers.keras", "flowers.keras"), "what is read"),
        (("tensorboard.sh", "no/such/folder"), "no/such/folder"),
        ((*TRAIN, "--preset", "hug"), "'hug': choose one of book"),
        ((*TRAIN, "--data-dir", "no/flowers"), "no images under no/flowers"),
        ((*TRAIN, "--epochs", "0"), "'0'"),
        ((*TRAIN, "--max-steps", "0"), "'0'"),
        ((*TRAIN, "--sample-every", "-1"), "'-1'"),
        ((*TRAIN, "--seed", str(2**32)), f"'{2**32}'"),
        ((*TRAIN, "--learning-rate", "nan"), "'nan'"),
        ((*TRAIN, "--precision", "half"), "'half': choose one of auto"),
        ((*TRAIN, "--objective", "eps"), "'eps': choose one of noise"),
        ((*TRAIN, "--loss-weighting", "snr"), "'snr': choose one of none"),
        ((*TRAIN, "--loss", "l1"), "'l1': choose one of mean_abs"),
        ((*TRAIN, "--output", "text.png"), "text.png is a file"),
        ((*TRAIN, "--output", "text.png/run"), "text.png"),
        ((*TRAIN, "--process-id", "1"), "--process-id goes with --distribute"),
    ],
)
@pytest.mark.slow
def test_a_mistake_is_one_line_before_keras_is_imported_and_nothing_changes(
    arguments, words, tmp_path, monkeypatch
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
    script, *options = arguments
    status, said = run_script(script, options, tmp_path, KERAS_BACKEND="none")
    assert status == 2
    assert_one_line(said, words)
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
