"""The command lines as a person meets them: help, pictures, and one line for each mistake."""

import subprocess
import sys
import time
from urllib.error import URLError
from urllib.request import urlopen

import numpy as np
import pytest
from conftest import ROOT, needs_tensorboard
from PIL import Image

SCRIPTS = sorted(
    path.name  # the others are modules that these import
    for path in (ROOT / "scripts").iterdir()
    if path.suffix == ".sh" or (path.suffix == ".py" and "command.run(main)" in path.read_text())
)


def run(script, *arguments):
    runner = sys.executable if script.endswith(".py") else "bash"
    command = [runner, ROOT / "scripts" / script, *arguments]
    return subprocess.run([*map(str, command)], capture_output=True, text=True, timeout=120)


@pytest.mark.parametrize("script", SCRIPTS)
def test_every_script_explains_itself(script):
    finished = run(script, "--help")
    assert finished.returncode == 0, finished.stderr
    assert script in finished.stdout and "usage" in finished.stdout.lower()


def test_generate_draws_a_grid_that_follows_from_its_seed(trained, tmp_path):
    pictures = []
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        output = tmp_path / f"{name}.png"
        finished = run(
            *("generate.py", "--model", trained.folder, "--num-images", 12, "--steps", 2),
            *("--seed", seed, "--output", output),
        )
        assert finished.returncode == 0, finished.stderr
        assert "12 pictures" in finished.stdout and str(output) in finished.stdout
        pictures.append(np.asarray(Image.open(output)))
    assert pictures[0].shape == (2 * 128, 10 * 128, 3)  # ten in a row, each pixel 8 wide
    np.testing.assert_array_equal(pictures[0], pictures[1])
    assert (pictures[0] != pictures[2]).any()


def test_generate_walks_between_flowers_and_ends_where_it_began(trained, tmp_path):
    output = tmp_path / "walk.png"
    finished = run(
        *("generate.py", "--model", trained.folder / "model.keras", "--num-images", 3),
        *("--interpolate", 4, "--steps", 2, "--output", output),
    )
    assert finished.returncode == 0, finished.stderr
    rows = np.asarray(Image.open(output)).reshape(3, 128, 4, 128, 3).transpose(0, 2, 1, 3, 4)
    for row in range(3):  # the last of a row is the first of the next, round to the first
        # Another place in the batch may round a pixel's last digit otherwise.
        np.testing.assert_allclose(rows[row, -1].astype(int), rows[(row + 1) % 3, 0], atol=1)
    assert (np.abs(rows[0, 0].astype(int) - rows[0, 1]) > 5).any()


def test_eta_draws_otherwise_from_the_same_noise(trained, tmp_path):
    for name, eta in (("a", 0), ("b", 1)):
        run(
            *("generate.py", "--model", trained.folder, "--num-images", 1, "--steps", 3),
            *("--eta", eta, "--output", tmp_path / f"{name}.png"),
        )
    a, b = (np.asarray(Image.open(tmp_path / f"{name}.png")) for name in "ab")
    assert (a != b).any()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["generate.py", "--model", "nowhere.keras"], "nowhere.keras"),
        (["generate.py", "--steps", "0"], "--steps must be 1 or more, got 0"),
        (["generate.py", "--num-images", "-2"], "got -2"),
        (["generate.py", "--eta", "2"], "between 0 and 1, got 2"),
        (["generate.py", "--eta", "1", "--sampler", "heun"], "goes with --sampler ddim, not heun"),
        (["generate.py", "--sampler", "euler"], "no sampler 'euler': choose one of ddim, ddpm"),
        (["generate.py", "--spacing", "time"], "--spacing time: ddim steps evenly in time"),
        (
            ["generate.py", "--sampler", "heun", "--spacing", "even"],
            "no spacing 'even': choose one of log_snr, time",
        ),
        (["generate.py", "--threshold", "2"], "above 0 and at most 1, got 2"),
        (["generate.py", "--output", "flowers.xyz"], "flowers.xyz"),
        (["train.py", "--preset", "hug"], "'hug': choose one of book"),
        (["train.py", "--epochs", "0"], "epochs must be a whole number, 1 or more, got 0"),
        (["train.py", "--max-steps", "0"], "got 0"),
        (["train.py", "--data-dir", "no/flowers/here"], "no/flowers/here"),
        (["train.py", "--precision", "half"], "'half': choose one of auto"),
        (["train.py", "--preset", "tiny", "--objective", "eps"], "'eps': choose one of noise"),
        (["tensorboard.sh", "no/such/folder"], "no/such/folder"),
    ],
)
def test_a_mistake_is_named_in_one_line_and_ends_with_status_2(arguments, words, tmp_path):
    extra = ["--output", tmp_path / "run"] if "train.py" in arguments else []
    finished = run(*arguments, *extra)
    assert finished.returncode == 2
    assert finished.stderr.startswith("error: ") and words in finished.stderr
    assert finished.stderr.count("\n") == 1
    assert not list(tmp_path.iterdir())


@needs_tensorboard
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
