"""What the tests share: where the real flowers are, painted ones, and trained tiny models."""

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
# Most of what JAX does in these tests is to compile: this takes half the time.
os.environ.setdefault("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")

import importlib
import signal
import sys
from pathlib import Path

import command
import keras
import numpy as np
import pytest

# A suite started in the background of a shell ignores Ctrl-C, and so would all that it starts.
signal.signal(signal.SIGINT, signal.default_int_handler)

ROOT = Path(__file__).resolve().parents[1]
SHARED = ROOT.parent / "shared"
ON_TENSORFLOW = keras.backend.backend() == "tensorflow"
needs_tensorboard = pytest.mark.skipif(
    not ON_TENSORFLOW, reason="runs are shown in TensorBoard on TensorFlow alone"
)


def state(model):
    """Everything a run depends on: weights, averages, optimizer, random state."""
    values = *model.weights, *model.optimizer.variables, model.seed_generator.state
    return [np.asarray(value) for value in values]


def assert_same_state(one, two, **tolerances):
    for a, b in zip(state(one), state(two), strict=True):
        np.testing.assert_allclose(a, b, **{"rtol": 0, **tolerances})


@pytest.fixture
def refusal(monkeypatch, capsys):
    """A function that calls a `main` with bad arguments and returns its error, one line."""

    def call(main, *arguments):
        monkeypatch.setattr(sys, "argv", ["script", *map(str, arguments)])
        with pytest.raises(SystemExit) as stopped:
            main()
        error = capsys.readouterr().err
        assert stopped.value.code == 2 and error.startswith("error: ") and error.count("\n") == 1
        return error

    return call


@pytest.fixture(scope="session")
def real_flowers_dir():
    """The folder of real flowers beside the checkout; the test is skipped where it is missing."""
    folder = SHARED / "flowers102"
    if not folder.is_dir():
        pytest.skip(f"no real flowers at {folder}")
    return folder


@pytest.fixture(scope="session")
def tiny():
    """The preset for tests."""
    from diffusion.training.config import get_preset

    return get_preset("tiny")


@pytest.fixture(scope="session")
def painted(tiny, tmp_path_factory):
    """A few painted flowers, for the tiny preset."""
    from diffusion.data.flowers import load_flowers

    cache = tmp_path_factory.mktemp("cache")
    return load_flowers(
        "painted", tiny.image_size, painted=tiny.painted, cache_dir=cache, progress=False
    )


@pytest.fixture(scope="session")
def trained(tiny, painted, tmp_path_factory):
    """A run of the tiny preset, finished: two epochs on painted flowers."""
    from diffusion.training.loop import train

    folder = tmp_path_factory.mktemp("models") / "tiny"
    return train(tiny, painted, folder, tensorboard=ON_TENSORFLOW, verbose=0)


@pytest.fixture(scope="session")
def by_name(tiny, painted, trained, tmp_path_factory):
    """The folder of a run whose model knows the painted flowers' names; its weights are random."""
    import dataclasses
    import shutil

    from diffusion.training.building import build
    from diffusion.training.export import inference_copy

    model = build(dataclasses.replace(tiny, labels=True), 1, class_names=painted.class_names)
    model.adapt(painted.images)
    rng = np.random.default_rng(0)
    for weight in model.network.trainable_weights:  # untrained, all names give one image
        if "embeddings" in weight.path or weight is model.network.layers[-1].kernel:
            weight.assign(rng.normal(0, 0.3, weight.shape))
    model.ema_network.set_weights(model.network.get_weights())
    folder = tmp_path_factory.mktemp("models") / "by-name"
    folder.mkdir()
    inference_copy(model).save(folder / "model.keras")
    shutil.copy(trained.folder / "run.json", folder)
    return folder


@pytest.fixture(scope="session")
def named(painted, tmp_path_factory):
    """A finished run of the tiny preset that has learnt the painted flowers' names."""
    from diffusion.training.config import get_preset
    from diffusion.training.loop import train

    folder = tmp_path_factory.mktemp("models") / "named"
    return train(get_preset("tiny", labels=True), painted, folder, verbose=0)


@pytest.fixture
def call(monkeypatch, capsys):
    """Call a script such as "evaluate.py" in this process: (status, its output, its errors)."""

    def call(script, *arguments):
        monkeypatch.setattr(sys, "argv", [script, *map(str, arguments)])
        with pytest.raises(SystemExit) as stopped:
            command.run(importlib.import_module(script.removesuffix(".py")).main)
        return stopped.value.code or 0, *capsys.readouterr()

    return call


@pytest.fixture
def mirror():
    """A web server with small flowers to download."""
    from mirror import FLOWERS, Mirror

    server = Mirror(FLOWERS)
    yield server
    server.stop()


@pytest.fixture
def kaggle(tmp_path):
    """A folder of three pictures in Kaggle's layout."""
    from flower_files import kaggle_layout

    return kaggle_layout(tmp_path / "my flowers")


@pytest.fixture
def generated(call, tmp_path):
    """A function: call generate.py with a model and options, return the picture as an array."""
    from PIL import Image

    def picture(model, *options):
        output = tmp_path / "generated.png"  # replaced each time
        arguments = "--model", model, "--steps", 2, "--output", output, *options
        status, printed, errors = call("generate.py", *arguments)
        assert status == 0, errors
        assert str(output) in printed
        return np.asarray(Image.open(output))

    return picture
