"""Training: stopped by whatever, it ends where a run that was never stopped ends."""

import dataclasses
import json
import os
import shutil
import signal
import subprocess
import sys
import time

import keras
import numpy as np
import pytest
from conftest import ROOT, needs_tensorboard
from PIL import Image

from diffusion.support.files import folder_lock, written_whole
from diffusion.training.callbacks import TrainingError
from diffusion.training.config import get_preset
from diffusion.training.loop import build, halve, load_model, resized, train


def state(model):
    """All that a run depends on: weights, averages, optimizer, random numbers."""
    values = [*model.get_weights(), *(np.asarray(v) for v in model.optimizer.variables)]
    return [*values, np.asarray(model.seed_generator.state)]


def assert_same_state(one, two):
    for a, b in zip(state(one), state(two), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.fixture(scope="module")
def straight(tmp_path_factory):
    """Four epochs of the tiny preset on painted flowers by the command line, never stopped."""
    folder = tmp_path_factory.mktemp("straight")
    finish(start(folder))
    return folder


def start(folder, *options):
    """Start scripts/train.py in a process of its own."""
    command = [sys.executable, ROOT / "scripts" / "train.py", "--preset", "tiny", "--epochs", "4"]
    options = ["--data-dir", "painted", "--output", folder, "--sample-every", "0", *options]
    return subprocess.Popen(
        [*map(str, command), *map(str, options)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )


def finish(process, status=0):
    output, errors = process.communicate(timeout=240)
    assert process.returncode == status, errors
    return output, errors


def wait_for(process, words):
    for line in process.stdout:
        if words in line:
            return
    pytest.fail(f"the run ended before {words!r}: {process.stderr.read()}")


def test_a_run_killed_twice_ends_with_the_weights_of_one_never_killed(straight, tmp_path):
    for resumed, words in ((False, "Epoch 2/4"), (True, "Epoch 4/4")):
        process = start(tmp_path, "--resume")
        wait_for(process, words)
        time.sleep(0.05 if resumed else 0.2)  # amid an epoch
        process.send_signal(signal.SIGKILL)
        process.communicate()
    finish(start(tmp_path, "--resume"))
    assert_same_state(load_model(tmp_path), load_model(straight))
    records = [json.loads((f / "run.json").read_text()) for f in (tmp_path, straight)]
    losses = [[entry["loss"] for entry in record["history"]] for record in records]
    assert losses[0] == losses[1] and len(losses[0]) == 4


def test_ctrl_c_saves_says_where_and_is_resumed_amid_the_epoch(straight, tmp_path):
    process = start(tmp_path)
    wait_for(process, "Epoch 2/4")
    process.send_signal(signal.SIGINT)
    output, _ = finish(process, status=130)
    steps = int(load_model(tmp_path).optimizer.iterations)
    assert f"after step {steps}, saved in {tmp_path}" in output and "--resume" in output
    assert 0 < steps < 24
    finish(start(tmp_path, "--resume"))
    assert_same_state(load_model(tmp_path), load_model(straight))


def test_max_steps_stops_amid_an_epoch_and_resume_goes_on_from_there(straight, tmp_path):
    finish(start(tmp_path, "--max-steps", "8"))  # an epoch has six
    assert int(load_model(tmp_path).optimizer.iterations) == 8
    finish(start(tmp_path, "--resume"))
    assert_same_state(load_model(tmp_path), load_model(straight))


def test_an_existing_model_is_not_overwritten(straight):
    before = (straight / "model.keras").read_bytes()
    _, errors = finish(start(straight), status=2)
    assert errors.startswith("error: ") and errors.count("\n") == 1 and "--resume" in errors
    assert (straight / "model.keras").read_bytes() == before


def test_a_finished_run_is_only_loaded(straight):
    before = (straight / "model.keras").stat().st_mtime_ns
    finish(start(straight, "--resume"))
    assert (straight / "model.keras").stat().st_mtime_ns == before


@needs_tensorboard
def test_tensorboard_gets_losses(straight):
    events = b"".join(p.read_bytes() for p in (straight / "logs").rglob("events*"))
    assert b"epoch_loss" in events


def test_two_runs_from_one_seed_are_the_same_and_from_another_are_not(tiny, painted, tmp_path):
    runs = [
        train(get_preset("tiny", seed=seed), painted, tmp_path / name, max_steps=3, verbose=0)
        for name, seed in (("a", 1), ("b", 1), ("c", 2))
    ]
    assert_same_state(runs[0].model, runs[1].model)
    assert np.abs(runs[0].model.get_weights()[0] - runs[2].model.get_weights()[0]).max() > 1e-3


def test_a_loss_that_is_not_finite_stops_the_run_and_keeps_the_last_good_checkpoint(
    tiny, painted, tmp_path
):
    class Ruin(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            if int(self.model.optimizer.iterations) == 8:
                weight = self.model.network.weights[0]
                weight.assign(np.full(weight.shape, np.inf))

    with pytest.raises(TrainingError, match=r"step 9, learning rate 0\.001.*model\.keras"):
        train(tiny, painted, tmp_path, callbacks=[Ruin()], verbose=0)
    model = load_model(tmp_path)
    assert int(model.optimizer.iterations) == 6
    assert all(np.isfinite(weight).all() for weight in model.get_weights())


def test_weights_ruined_by_the_last_step_of_an_epoch_are_not_saved(tiny, painted, tmp_path):
    class Ruin(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            if int(self.model.optimizer.iterations) == 6:
                weight = self.model.network.weights[0]
                weight.assign(np.full(weight.shape, np.nan))

    with pytest.raises(TrainingError, match=r"a weight is not finite at step 6.*no checkpoint"):
        train(tiny, painted, tmp_path, callbacks=[Ruin()], verbose=0)
    assert not (tmp_path / "model.keras").exists()


def test_a_save_that_fails_half_way_leaves_the_old_file(tmp_path):
    path = tmp_path / "model.keras"
    path.write_text("old")
    with pytest.raises(OSError, match="disk full"), written_whole(path) as temporary:
        temporary.write_text("half of the ne")
        raise OSError("disk full")
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"batch_size": 4}, "batch_size=8, not 4"),
        ({"widths": (8, 24)}, "widths"),
        ({"seed": 3}, "seed=0"),
    ],
)
def test_a_run_is_not_resumed_with_other_numbers(trained, painted, changes, words):
    with pytest.raises(ValueError, match=words):
        train(get_preset("tiny", **changes), painted, trained.folder, resume=True)


def test_a_run_is_not_resumed_on_other_data(trained, painted, tiny):
    others = dataclasses.replace(painted, description="48 photographs")
    with pytest.raises(ValueError, match=r"trained on 48 painted flowers.*not on 48 photographs"):
        train(tiny, others, trained.folder, resume=True)


@pytest.mark.parametrize("content", ["", "{}", "[]", '{"config": 1, "data": 2, "history": 3}'])
def test_a_record_that_cannot_be_read_is_named(trained, painted, tiny, tmp_path, content):
    shutil.copytree(trained.folder, tmp_path / "run")
    (tmp_path / "run" / "run.json").write_text(content)
    with pytest.raises(ValueError, match=r"run\.json cannot be read"):
        train(tiny, painted, tmp_path / "run", resume=True)


def test_two_processes_do_not_train_in_one_folder(tiny, painted, tmp_path):
    with (
        folder_lock(tmp_path / "run"),
        pytest.raises(FileExistsError, match="another process is training"),
    ):
        train(tiny, painted, tmp_path / "run", verbose=0)


def test_a_folder_that_cannot_be_written_is_named_before_any_work(tiny, painted, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match="file"):
        train(tiny, painted, tmp_path / "file" / "run", verbose=0)


def test_a_model_of_the_readers_own_is_trained(tiny, painted, tmp_path):
    own = build(get_preset("tiny", widths=(12, 16), schedule="cosine"), 6)
    run = train(tiny, painted, tmp_path, model=own, max_steps=1, verbose=0)
    assert run.model is own
    assert type(load_model(tmp_path).schedule).__name__ == "CosineSchedule"


def test_more_epochs_than_before_go_on_from_the_end(trained, painted, tmp_path):
    shutil.copytree(trained.folder, tmp_path / "run")
    run = train(get_preset("tiny", epochs=3), painted, tmp_path / "run", resume=True, verbose=0)
    assert [entry["steps"] for entry in run.record["history"]] == [6, 12, 18]
    assert run.record["seconds"] > trained.record["seconds"]


def test_half_size_epochs_come_first_and_all_that_was_learnt_carries_over(painted, tmp_path):
    config = get_preset("tiny", epochs=3, half_size_epochs=2)
    half = train(config, painted, tmp_path / "a", max_steps=12, verbose=0)
    assert half.model.image_size == 8
    bigger = resized(half.model, config, 16)
    assert bigger.image_size == 16
    assert_same_state(bigger, half.model)
    # Stopped amid the half-size epochs, at their end, and amid the last: the same end.
    for max_steps in (8, 12, 15, None):
        stopped = train(
            config, painted, tmp_path / "b", max_steps=max_steps, resume=True, verbose=0
        )
    straight = train(config, painted, tmp_path / "c", verbose=0)
    assert straight.model.image_size == 16
    assert_same_state(stopped.model, straight.model)


def test_halving_averages_two_by_two_pixels():
    pictures = np.random.default_rng(0).integers(0, 256, (3, 8, 8, 3)).astype("uint8")
    expected = pictures.reshape(3, 4, 2, 4, 2, 3).mean(axis=(2, 4))
    np.testing.assert_allclose(halve(pictures), expected, atol=0.5)
    assert halve(pictures).dtype == np.uint8


def test_sample_grids_are_drawn_after_each_epoch(trained):
    for epoch in (1, 2):
        with Image.open(trained.folder / "samples" / f"epoch_{epoch:04d}.png") as picture:
            assert picture.size == (160, 16)


def test_the_caption_says_what_data_how_many_steps_and_how_long(trained):
    assert "48 painted flowers, 16x16" in trained.caption
    assert "12 steps of 8 pictures in" in trained.caption


def test_a_lowered_learning_rate_ends_near_zero(painted):
    model = build(get_preset("tiny", decay_learning_rate=True), total_steps=200)
    rates = [float(model.optimizer._learning_rate(step)) for step in (0, 20, 110, 200)]
    assert rates[0] < 1e-4 and abs(rates[1] - 1e-3) < 1e-5 and rates[3] < 1e-6 < rates[2] < 1e-3


def test_names_that_do_not_exist_are_refused():
    with pytest.raises(ValueError, match=r"schedule 'cosin'.*offset_cosine"):
        build(get_preset("tiny", schedule="cosin"), 1)
    with pytest.raises(ValueError, match=r"precision 'half'.*mixed_bfloat16"):
        build(get_preset("tiny", precision="half"), 1)
