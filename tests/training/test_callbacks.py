"""What a run writes: whole or not at all, and what only shows it cannot end it."""

import functools
import subprocess

import keras
import numpy as np
import pytest
from conftest import ROOT, needs_tensorboard
from PIL import Image

from diffusion.support.files import written_whole
from diffusion.training import callbacks, loop
from diffusion.training.building import load_model
from diffusion.training.callbacks import LossCurve, TrainingError, memory_errors
from diffusion.training.curves import read_losses
from diffusion.training.loop import train

HEADER = "step,steps,image_size,loss\n"


class After(keras.callbacks.Callback):
    """Call `act(model)` after step `step`."""

    def __init__(self, step, act):
        super().__init__()
        self.step, self.act = step, act

    def on_train_batch_end(self, batch, logs=None):
        if int(self.model.optimizer.iterations) == self.step:
            self.act(self.model)


def ruin(model, value=np.nan):
    weight = model.network.weights[0]
    weight.assign(np.full(weight.shape, value))


class Eager(LossCurve):
    """A curve that is written after every step."""

    def _close(self, count, mean):
        super()._close(count, mean)
        self._write()


def test_a_loss_that_is_not_finite_ends_the_run_and_keeps_curve_and_last_good_checkpoint(
    tiny, painted, tmp_path, monkeypatch
):
    monkeypatch.setattr(loop, "LossCurve", functools.partial(Eager, every=1))
    with pytest.raises(TrainingError, match=r"step 9, learning rate 0\.001.*model\.keras"):
        train(tiny, painted, tmp_path, callbacks=[After(8, ruin)], verbose=0)
    assert read_losses(tmp_path / "losses.csv")[-1].step == 8
    model = load_model(tmp_path)
    assert int(model.optimizer.iterations) == 6
    assert all(np.isfinite(weight).all() for weight in model.get_weights())


def test_weights_ruined_by_the_last_step_of_an_epoch_are_not_saved(tiny, painted, tmp_path):
    with pytest.raises(TrainingError, match=r"a weight is not finite at step 6.*no checkpoint"):
        train(tiny, painted, tmp_path, callbacks=[After(6, ruin)], verbose=0)
    assert not (tmp_path / "model.keras").exists()


def test_a_write_that_fails_midway_leaves_the_old_file(tmp_path):
    path = tmp_path / "model.keras"
    path.write_text("old")
    with pytest.raises(OSError, match="disk full"), written_whole(path) as temporary:
        temporary.write_text("half of the ne")
        raise OSError("disk full")
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]


def full_disk(*arguments, **options):
    raise OSError(28, "No space left on device")


def test_a_full_disk_is_reported_with_the_file_and_what_is_left(
    tiny, painted, tmp_path, monkeypatch
):
    fill = After(8, lambda model: monkeypatch.setattr(callbacks, "write_json", full_disk))
    words = r"model\.keras cannot be written at step 12 \(No space left.*checkpoint is .*model"
    with pytest.raises(OSError, match=words):
        train(tiny, painted, tmp_path, callbacks=[fill], verbose=0)
    assert int(load_model(tmp_path).optimizer.iterations) == 6


def test_curve_and_grids_that_cannot_be_written_do_not_end_the_run(
    tiny, painted, tmp_path, monkeypatch
):
    monkeypatch.setattr(callbacks, "write_losses", full_disk)
    (tmp_path / "samples").touch()  # a file for a folder
    with pytest.warns(UserWarning, match="cannot be written") as warned:
        run = train(tiny, painted, tmp_path, verbose=0)
    assert len(run.losses) == 2
    said = [str(w.message) for w in warned if "cannot be written" in str(w.message)]
    assert len(said) == 2 and "losses.csv" in said[0] and "samples" in said[1]  # once each


@needs_tensorboard
def test_tensorboard_logs_that_cannot_be_written_do_not_end_the_run(tiny, painted, tmp_path):
    (tmp_path / "logs").touch()
    with pytest.warns(UserWarning, match=r"logs cannot be written") as warned:
        run = train(tiny, painted, tmp_path, tensorboard=True, verbose=0)
    assert len(run.losses) == 2
    assert sum("cannot be written" in str(w.message) for w in warned) == 1


@needs_tensorboard
@pytest.mark.slow
def test_tensorboard_starts_without_chatter(tmp_path):
    command = ["bash", ROOT / "scripts" / "tensorboard.sh", tmp_path, "--version_tb"]
    finished = subprocess.run(command, capture_output=True, text=True)
    assert finished.stdout.count(".") == 2 and not finished.stderr


@needs_tensorboard
def test_tensorboard_gets_losses_by_epoch(trained):
    events = b"".join(path.read_bytes() for path in (trained.folder / "logs").rglob("events*"))
    assert b"epoch_loss" in events and b"epoch_learning_rate" in events and b"samples" in events


@pytest.mark.parametrize("content", ["step,loss\n1,2\n", "", "\0", f"{HEADER}6,6,16,nan\n"])
def test_a_damaged_loss_curve_is_moved_aside(trained, tmp_path, content):
    (tmp_path / "losses.csv").write_text(content)
    curve = LossCurve(tmp_path / "losses.csv")
    curve.set_model(trained.model)
    with pytest.warns(UserWarning, match=r"losses\.csv is damaged .*losses\.damaged\.csv"):
        curve.on_train_begin()
    assert curve.parts == [] and not (tmp_path / "losses.csv").exists()
    assert (tmp_path / "losses.damaged.csv").read_text() == content


class ResourceExhaustedError(Exception):
    """By the name of TensorFlow's."""


@pytest.mark.parametrize(
    ("error", "raised"),
    [
        (ResourceExhaustedError("OOM when allocating"), TrainingError),
        (RuntimeError("RESOURCE_EXHAUSTED: Out of memory"), TrainingError),  # JAX
        (MemoryError(), TrainingError),
        (ResourceExhaustedError("No space left on device"), ResourceExhaustedError),
        (KeyError("a defect"), KeyError),
    ],
)
def test_a_lack_of_memory_names_the_batch_size(tiny, tmp_path, error, raised):
    with pytest.raises(raised) as caught, memory_errors(tiny, tmp_path / "model.keras"):
        raise error
    assert raised is not TrainingError or "batch_size 8" in str(caught.value)


def test_sample_grids_are_drawn_after_each_epoch(trained):
    for epoch in (1, 2):
        with Image.open(trained.folder / "samples" / f"epoch_{epoch:04d}.png") as picture:
            assert picture.size == (160, 16)
