"""Loss curves: fine-grained, with neither gap nor repetition, and read from any kind of record."""

import shutil

import numpy as np
import pytest
from conftest import needs_tensorboard

from diffusion.training.callbacks import LossCurve
from diffusion.training.config import get_preset
from diffusion.training.curves import Curve, Part, read_curve, read_losses
from diffusion.training.loop import train
from diffusion.training.tensorboard_logs import Events


class Counting:
    """What the callback needs of a model: a count of steps and an image size."""

    def __init__(self):
        self.optimizer, self.image_size = self, 16
        self.iterations = np.array(0)


def record(path, model, losses, epochs, steps=60, stop=None):
    """Drive the callback as `fit` does, with Keras's running means, of `losses` by step."""
    curve = LossCurve(path)
    curve.set_model(model)
    curve.on_train_begin()
    for epoch in epochs:
        curve.on_epoch_begin(epoch)
        begun, total = int(model.iterations), 0.0
        for step in range(begun, (epoch + 1) * steps):
            total += losses[step]
            mean = total / (step - begun + 1)
            model.iterations += 1
            curve.on_train_batch_end(step - begun, {"loss": mean})
            if step + 1 == stop:
                break
        curve.on_epoch_end(epoch, {"loss": mean})
    curve.on_train_end()
    return read_losses(path)


def test_parts_are_the_means_of_their_steps_also_after_a_stop_and_a_kill(tmp_path):
    losses, model = np.random.default_rng(0).uniform(0.1, 0.9, 180), Counting()
    path = tmp_path / "losses.csv"
    record(path, model, losses, [0, 1], stop=107)  # stopped midway through the second epoch
    record(path, model, losses, [1, 2])  # ends it; then is killed, saved after 120 steps
    model.iterations = np.array(120)
    parts = record(path, model, losses, [2])
    ends = [25, 50, 60, 75, 100, 107, 120, 125, 150, 175, 180]
    assert [part.step for part in parts] == ends
    assert [part.steps for part in parts] == np.diff([0, *ends]).tolist()
    for part in parts:
        expected = losses[part.step - part.steps : part.step].mean()
        assert part.loss == pytest.approx(expected, abs=1e-6)


@pytest.mark.slow
def test_training_leaves_a_curve_that_agrees_with_the_losses_of_the_epochs(
    trained, painted, tmp_path
):
    assert [part.step for part in read_losses(trained.folder / "losses.csv")] == [6, 12]
    folder = shutil.copytree(trained.folder, tmp_path / "run")
    with open(folder / "losses.csv", "a") as file:
        file.write("18,6,16,9.9\n")  # of an epoch that was never saved
    config = get_preset("tiny", epochs=3)
    train(config, painted, folder, resume=True, max_steps=14, sample_every=0, verbose=0)
    run = train(config, painted, folder, resume=True, sample_every=0, verbose=0)
    parts = read_losses(folder / "losses.csv")
    assert [part.step for part in parts] == [6, 12, 14, 18]
    np.testing.assert_allclose([part.loss for part in parts], run.losses, atol=1e-6)
    assert {part.image_size for part in parts} == {16}
    assert run.record["loss"] == "mean_absolute_error"


@needs_tensorboard
def test_tensorboard_holds_the_same_and_losses_of_epochs_suffice(trained, tmp_path):
    own = read_curve(trained.folder)
    shutil.copytree(trained.folder / "logs", tmp_path / "logs")  # away from the run
    logged = read_curve(tmp_path / "logs")
    for ours, theirs in zip(own.parts, logged.parts, strict=True):
        assert ours[:2] == theirs[:2] and ours.loss == pytest.approx(theirs.loss, abs=1e-6)
    assert read_curve(trained.folder / "logs").about == own.about != {} == logged.about
    shutil.rmtree(tmp_path / "logs" / "steps")
    with pytest.raises(ValueError, match="--steps-per-epoch"):
        read_curve(tmp_path / "logs")
    per_epoch = read_curve(tmp_path / "logs", steps_per_epoch=6)
    np.testing.assert_allclose([part.loss for part in per_epoch.parts], trained.losses, rtol=1e-6)
    assert [part[:2] for part in per_epoch.parts] == [(6, 6), (12, 6)]


@needs_tensorboard
def test_tensorboard_drops_what_a_killed_run_had_not_saved(tmp_path):
    for done, losses in ((0, {25: 0.8, 50: 0.7, 75: 0.6}), (50, {60: 0.5, 75: 0.4})):
        events = Events(tmp_path, done)
        for step, loss in losses.items():
            events.add("loss", loss, step)
        events.close()
    parts = read_curve(tmp_path).parts
    assert [part.step for part in parts] == [25, 50, 60, 75]
    assert [part.loss for part in parts] == pytest.approx([0.8, 0.7, 0.5, 0.4])


def test_a_run_older_than_the_curve_has_the_losses_of_its_epochs(trained, tmp_path):
    shutil.copy(trained.folder / "run.json", tmp_path)
    parts = read_curve(tmp_path).parts
    assert [part[:2] for part in parts] == [(6, 6), (12, 6)]
    assert [part.loss for part in parts] == trained.losses


def test_the_loss_near_a_step_is_the_mean_of_the_last_quarter():
    losses = np.random.default_rng(0).uniform(0.1, 0.9, 1000)
    parts = [Part(end, 25, 64, losses[end - 25 : end].mean()) for end in range(25, 1001, 25)]
    curve = Curve("run", parts, {})
    assert curve.near(100) == pytest.approx(losses[75:100].mean())
    assert curve.near(1000) == pytest.approx(losses[750:].mean())
    assert curve.near(1500) is None  # not reached
    coarse = Curve("run", [Part(500, 500, 64, 0.3), Part(1000, 500, 64, 0.2)], {})
    assert coarse.near(1000) is None and coarse.near(100) is None  # too coarse
