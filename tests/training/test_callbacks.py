"""What a run writes: whole or not at all, and what only shows it cannot end it."""

import functools

import keras
import numpy as np
import pytest
from conftest import ON_TENSORFLOW, needs_tensorboard
from PIL import Image
from processes import run_script

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


def ruin(model):
    weight = model.network.weights[0]
    weight.assign(np.full(weight.shape, np.nan))


class Eager(LossCurve):
    """A curve that is written after every step."""

    def _close(self, count, mean):
        super()._close(count, mean)
        self._write()


@pytest.mark.parametrize(
    ("ruined_after", "words", "saved"),
    [
        (8, r"step 9, learning rate 0\.001.*model\.keras", 6),
        (6, r"a weight is not finite at step 6.*no checkpoint", 0),  # an epoch's last step
    ],
)
@pytest.mark.slow
def test_what_is_not_finite_ends_the_run_and_keeps_the_last_good_checkpoint(
    tiny, painted, tmp_path, ruined_after, words, saved, monkeypatch
):
    monkeypatch.setattr(loop, "LossCurve", functools.partial(Eager, every=1))
    with pytest.raises(TrainingError, match=words):
        train(tiny, painted, tmp_path, callbacks=[After(ruined_after, ruin)], verbose=0)
    assert (tmp_path / "model.keras").exists() == bool(saved)
    assert read_losses(tmp_path / "losses.csv")[-1].step == ruined_after
    if saved:
        model = load_model(tmp_path)
        assert int(model.optimizer.iterations) == saved
        assert all(np.isfinite(weight).all() for weight in model.get_weights())


def full_disk(*arguments, **options):
    raise OSError(28, "No space left on device")


@pytest.mark.slow
def test_a_full_disk_is_reported_with_the_file_and_what_is_left(
    tiny, painted, tmp_path, monkeypatch
):
    fill = After(8, lambda model: monkeypatch.setattr(callbacks, "write_json", full_disk))
    words = r"model\.keras cannot be written at step 12 \(No space left.*checkpoint is .*model"
    with pytest.raises(OSError, match=words):
        train(tiny, painted, tmp_path, callbacks=[fill], verbose=0)
    assert int(load_model(tmp_path).optimizer.iterations) == 6


@pytest.mark.slow
def test_curve_grids_and_logs_that_cannot_be_written_do_not_end_the_run(
    tiny, painted, tmp_path, monkeypatch
):
    monkeypatch.setattr(callbacks, "write_losses", full_disk)
    views = ["losses.csv", "samples"] + ["logs"] * ON_TENSORFLOW
    for name in views[1:]:
        (tmp_path / name).touch()  # a file for a folder
    with pytest.warns(UserWarning, match="cannot be written") as warned:
        run = train(tiny, painted, tmp_path, tensorboard=ON_TENSORFLOW, verbose=0)
    assert len(run.losses) == 2
    said = [str(w.message) for w in warned if "cannot be written" in str(w.message)]
    assert len(said) == len(views)  # once each
    for name in views:
        assert any(f"{name} cannot be written" in words for words in said)


@needs_tensorboard
@pytest.mark.slow
def test_tensorboard_starts_without_chatter(tmp_path):
    status, said = run_script("tensorboard.sh", [tmp_path, "--version_tb"], tmp_path)
    assert status == 0 and said.count(".") == 2


def test_a_run_leaves_a_grid_for_each_epoch_and_tensorboard_logs(trained):
    for epoch in (1, 2):
        with Image.open(trained.folder / "samples" / f"epoch_{epoch:04d}.png") as picture:
            assert picture.size == (160, 16)
    events = b"".join(path.read_bytes() for path in (trained.folder / "logs").rglob("events*"))
    for tag in (b"epoch_loss", b"epoch_learning_rate", b"samples"):
        assert tag in events or not ON_TENSORFLOW


def test_the_grids_of_a_model_with_names_show_the_same_names_from_first_to_last(named, tmp_path):
    seen, grid = [], callbacks.SampleGrid(tmp_path, num_images=4, steps=1)

    class Recording:
        labelled, class_names = True, tuple("abcdefg")

        def generate(self, count, steps, seed, labels):
            seen.append((seed, labels.tolist()))
            return named.model.generate(count, steps, seed=seed)

    grid.set_model(Recording())
    for epoch in (0, 1):
        grid.on_epoch_end(epoch)
    assert seen == [(0, [0, 2, 4, 6])] * 2
    # Those of a run are of names too: the same noise without them gives another grid.
    labels = np.linspace(0, len(named.model.class_names) - 1, 10).round().astype(int)
    images = named.model.generate(10, 3, seed=0, labels=labels)
    with Image.open(named.folder / "samples" / "epoch_0002.png") as picture:
        row = np.concatenate(list(images), axis=1)
        np.testing.assert_allclose(np.asarray(picture) / 255, row, atol=0.6 / 255)


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
