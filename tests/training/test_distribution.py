"""Several devices train as one: in one process, in two, and when process 0 is killed."""

import importlib.util
import json
import threading

import keras
import numpy as np
import pytest
from conftest import ON_TENSORFLOW, ROOT, assert_same_state
from processes import end, start_python
from test_supervisor import free_address, on_jax

from diffusion.data.batches import Batches
from diffusion.training import distribution
from diffusion.training.loop import load_model

COMMON = """
import json, os, signal, sys, time
import keras
from diffusion.training import distribution
from diffusion.training.config import get_preset
from diffusion.data.flowers import load_flowers
from diffusion.training.loop import train

config = get_preset("tiny", epochs=4, half_size_epochs=1, flip=True, labels=True)
flowers = load_flowers("painted", 16, painted=48, cache_dir=sys.argv[1], progress=False)
losses = []  # of each step, from Keras's running mean over the epoch

class Losses(keras.callbacks.Callback):
    def on_epoch_begin(self, epoch, logs=None):
        self.total = self.steps = 0

    def on_train_batch_end(self, batch, logs=None):
        self.steps += 1
        losses.append(self.steps * logs["loss"] - self.total)
        self.total = self.steps * logs["loss"]

def run(folder, *callbacks, **options):
    callbacks = [Losses(), *callbacks]
    options = {"verbose": 0, "sample_every": 2, **options}
    return train(config, flowers, folder, callbacks=callbacks, **options)

def report(**facts):
    print(json.dumps({"losses": losses, **facts}))
"""

ONE_PROCESS = """
folder = sys.argv[2]
if len(sys.argv) > 3:  # TensorFlow needs to be told to make two devices of one processor
    import tensorflow as tf
    cpu = tf.config.list_physical_devices("CPU")[0]
    halves = [tf.config.LogicalDeviceConfiguration()] * 2
    tf.config.set_logical_device_configuration(cpu, halves)
run(folder + "/alone")
alone, losses = losses, []
with distribution.start() as devices:
    stopped = run(folder + "/two", max_steps=9)
    run(folder + "/two", resume=True)
report(alone=alone, devices=devices)
"""

TWO_PROCESSES = """
number, folder = int(sys.argv[3]), sys.argv[2]

class Interrupt(keras.callbacks.Callback):
    def on_train_batch_end(self, batch, logs=None):
        if len(losses) == 8 and number == 1:
            os.kill(os.getpid(), signal.SIGINT)
        if len(losses) >= 8:
            time.sleep(0.2)  # the others learn of it within a second

with distribution.start(sys.argv[4], 2, number, 100) as devices:
    stopped = run(folder, Interrupt())
    steps = len(losses)
    run(folder, resume=True)
report(interrupted=stopped.interrupted, steps=steps, devices=devices)
"""


def start(program, *arguments, backend="jax", **environment):
    return start_python("-c", COMMON + program, *arguments, KERAS_BACKEND=backend, **environment)


def reports(*processes):
    """Return what each printed last; the test fails unless all end with status 0."""
    outputs = []
    for status, output, errors in end(processes, timeout=240):
        assert status == 0, errors
        outputs.append(json.loads(output.splitlines()[-1]))
    return outputs


def assert_same_model(one, two):
    one, two = load_model(one), load_model(two)
    assert int(one.optimizer.iterations) == int(two.optimizer.iterations) == 24
    assert_same_state(one, two, rtol=1e-3, atol=1e-4)


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def one_process(cache, tmp_path_factory):
    """On JAX, train on one device, and on two devices of one process."""
    folder = tmp_path_factory.mktemp("one")
    flags = "--xla_force_host_platform_device_count=2"
    (report,) = reports(start(ONE_PROCESS, cache, folder, XLA_FLAGS=flags))
    return folder, report


@on_jax
def test_two_devices_of_one_machine_learn_what_one_learns(one_process):
    folder, report = one_process
    assert report["devices"] == "2 devices: DataParallel on jax"
    np.testing.assert_allclose(report["losses"], report["alone"], rtol=2e-5)
    assert_same_model(folder / "alone", folder / "two")


@on_jax
def test_two_processes_learn_what_one_learns_although_one_was_stopped(one_process, cache, tmp_path):
    alone, expected = one_process
    address = free_address()
    folders = [tmp_path / name for name in ("first", "second")]  # a shared disk is not needed
    first, second = reports(
        *(start(TWO_PROCESSES, cache, folders[i], i, address) for i in range(2))
    )
    assert first["interrupted"] and second["interrupted"]
    assert first["steps"] == second["steps"] < 24
    np.testing.assert_allclose(first["losses"], second["losses"], rtol=1e-6)
    np.testing.assert_allclose(first["losses"], expected["alone"], rtol=2e-5)
    assert_same_model(alone / "alone", folders[0])
    record = json.loads((folders[0] / "run.json").read_text())
    assert record["history"][-1]["steps"] == 24
    assert (folders[0] / "samples" / "epoch_0004.png").exists()
    assert not folders[1].exists()


@on_jax
def test_train_py_ends_with_one_line_when_process_0_is_killed(tmp_path):
    command = [
        *("-u", ROOT / "scripts/train.py", "--preset", "tiny", "--epochs", 1000),
        *("--data-dir", "painted", "--output", tmp_path / "run", "--sample-every", 0),
        *("--distribute", "--coordinator", free_address(), "--num-processes", 2, "--process-id"),
    ]
    first, second = (start_python(*command, i, KERAS_BACKEND="jax") for i in range(2))
    guard = threading.Timer(240, first.kill)
    guard.start()
    try:
        assert any(line.startswith("Epoch 2/") for line in first.stdout), first.stderr.read()
    finally:
        guard.cancel()
        first.kill()
        first.communicate()
    ((status, _, errors),) = end([second], timeout=60)
    assert status == 2
    assert errors.splitlines()[-1].startswith("error: process 0 of 2 was lost"), errors
    assert "Check failure" not in errors and "Traceback" not in errors


@pytest.mark.slow
@pytest.mark.skipif(
    importlib.util.find_spec("tensorflow") is None, reason="TensorFlow is not installed"
)
def test_mirrored_devices_on_tensorflow_learn_what_one_learns(cache, tmp_path):
    (report,) = reports(start(ONE_PROCESS, cache, tmp_path, "two", backend="tensorflow"))
    assert report["devices"] == "2 devices: MirroredStrategy on tensorflow"
    np.testing.assert_allclose(report["losses"], report["alone"], rtol=2e-5)
    assert_same_model(tmp_path / "alone", tmp_path / "two")


def test_one_device_is_reported_and_trains_alone():
    with distribution.start() as devices:
        assert f"one device on {keras.backend.backend()}: nothing to distribute" in devices
        assert distribution.is_main_process() and distribution.share(7) == slice(0, 7)


@pytest.mark.skipif(not ON_TENSORFLOW, reason="asks TensorFlow, and JAX would wait")
def test_tensorflow_refuses_several_machines():
    with pytest.raises(ValueError, match=r"one machine only .*KERAS_BACKEND=jax"):
        distribution.start("host:1234", 2, 0).__enter__()


def test_the_shares_of_all_processes_make_the_joint_batch(monkeypatch):
    images = np.random.default_rng(0).integers(0, 256, (20, 4, 4, 3), "uint8")
    joint = Batches(images, 8, flip=True, seed=3)
    parts = []
    for first, local in ((0, 3), (3, 1)):  # one machine of three devices, another of one
        here = distribution._Here(devices=4, first=first, local=local)
        monkeypatch.setattr(distribution, "_here", here)
        parts.append(Batches(images, 8, flip=True, seed=3, share=distribution.share(8)))
    assert [len(part[0]) for part in parts] == [6, 2]
    for index in range(2):
        whole = np.concatenate([part[index] for part in parts])
        np.testing.assert_array_equal(whole, joint[index])
    with pytest.raises(ValueError, match="batch_size 6 cannot be shared evenly by 4 devices"):
        distribution.share(6)
