"""A run stopped by any signal saves, says where, and ends like a run that was never stopped."""

import os
import pty
import signal
import subprocess
import sys
import time

import keras
import pytest
from conftest import ROOT, assert_same_state

from diffusion.training.building import load_model
from diffusion.training.callbacks import SampleGrid
from diffusion.training.config import get_preset
from diffusion.training.loop import train
from diffusion.training.record import load_record
from diffusion.training.stopping import GracefulStop

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def start(folder, **options):
    """Start scripts/train.py in its own process."""
    command = [sys.executable, ROOT / "scripts" / "train.py", "--preset", "tiny", "--epochs", 4]
    command += ["--data-dir", "painted", "--output", folder, "--sample-every", 0, "--resume"]
    options = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **options}
    environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
    return subprocess.Popen([*map(str, command)], env=environment, **options)


def wait_for(words, read_line):
    """Read lines up to the one with `words`."""
    while line := read_line():
        if words in line:
            return
    pytest.fail(f"the run ended before {words!r}")


@pytest.mark.slow
def test_a_run_stopped_by_every_signal_ends_like_one_never_stopped(tiny, painted, tmp_path):
    folder = tmp_path / "run"
    process = start(folder)
    wait_for(b"Epoch 2/4", process.stdout.readline)
    process.kill()
    process.communicate()
    assert load_record(folder / "run.json")["history"][0]["steps"] == 6

    for number, words in ((signal.SIGTERM, b"Epoch 3/4"), (signal.SIGINT, b"Epoch")):
        began = time.perf_counter()
        process = start(folder)
        wait_for(words, process.stdout.readline)
        signalled = time.perf_counter()
        process.send_signal(number)
        output, errors = process.communicate(timeout=120)
        assert process.returncode == 128 + number, errors
        # `docker stop` grants 10 s. Measured: 3 s on a quiet machine, where to start takes 12 s.
        assert time.perf_counter() - signalled < signalled - began
        steps = load_record(folder / "run.json")["steps"]
        expected = f"stopped by {number.name} after step {steps}, saved in {folder}".encode()
        assert expected in output and b"--resume" in output and 12 < steps < 24

    ours, theirs = pty.openpty()  # a terminal that is closed: nothing can be printed from then on
    process = start(folder, stdout=theirs, stderr=theirs, start_new_session=True)
    os.close(theirs)
    with open(ours, "rb", buffering=0) as terminal:
        wait_for(b"Epoch", terminal.readline)
    process.send_signal(signal.SIGHUP)
    process.send_signal(signal.SIGHUP)  # from the shell, then from the kernel
    assert process.wait(timeout=120) == 128 + signal.SIGHUP
    # Both may come before the first step of this process: then there is nothing to save.
    assert steps <= load_record(folder / "run.json")["steps"] < 24

    config = get_preset("tiny", epochs=4)
    stopped = train(config, painted, folder, resume=True, verbose=0)
    straight = train(config, painted, tmp_path / "straight", verbose=0)
    assert_same_state(stopped.model, straight.model)


class Signals(keras.callbacks.Callback):
    """Send this process SIGHUP after step 7 and SIGTERM after step 8."""

    def on_train_batch_end(self, batch, logs=None):
        number = {7: signal.SIGHUP, 8: signal.SIGTERM}.get(int(self.model.optimizer.iterations))
        if number:
            os.kill(os.getpid(), number)


@pytest.mark.slow
def test_a_signal_ends_the_step_saves_and_draws_no_grid_and_an_ignored_one_stays_ignored(
    tiny, painted, tmp_path, capsys
):
    hangup = signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as under nohup
    before = [signal.getsignal(number) for number in SIGNALS]
    try:
        run = train(tiny, painted, tmp_path, callbacks=[Signals()])
        assert [signal.getsignal(number) for number in SIGNALS] == before
    finally:
        signal.signal(signal.SIGHUP, hangup)
    assert run.interrupted and run.signal == signal.SIGTERM
    assert int(load_model(tmp_path).optimizer.iterations) == 8
    assert [path.name for path in (tmp_path / "samples").iterdir()] == ["epoch_0001.png"]
    assert "2/6 - " in capsys.readouterr().out  # the progress bar does not say 6/6


@pytest.mark.slow
def test_a_signal_before_the_first_step_ends_at_once_for_there_is_nothing_to_save(
    tiny, painted, tmp_path
):
    begun = keras.callbacks.LambdaCallback(
        on_train_batch_begin=lambda batch, logs: os.kill(os.getpid(), signal.SIGTERM)
    )
    run = train(tiny, painted, tmp_path / "run", callbacks=[begun], sample_every=0, verbose=0)
    assert run.interrupted and run.signal == signal.SIGTERM and run.record["steps"] == 0
    assert not (tmp_path / "run" / "model.keras").exists()


def test_a_second_ctrl_c_ends_at_once(tmp_path):
    with pytest.raises(KeyboardInterrupt), GracefulStop(tmp_path) as stop:
        signal.raise_signal(signal.SIGINT)
        assert stop.interrupted
        signal.raise_signal(signal.SIGINT)


def test_a_sample_grid_is_abandoned_at_a_signal(tmp_path):
    class Slow:
        labelled = False

        def generate(self, *arguments, **options):
            signal.raise_signal(signal.SIGTERM)
            pytest.fail("the grid was not abandoned")

    with GracefulStop(tmp_path) as stop:
        grid = SampleGrid(tmp_path / "samples", stop=stop)
        grid.set_model(Slow())
        grid.on_epoch_end(0)
    assert stop.signal == signal.SIGTERM and not (tmp_path / "samples").exists()
