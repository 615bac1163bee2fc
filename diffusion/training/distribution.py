"""Train on all GPUs of one machine, or on several machines, as on one: data parallelism.

    with distribution.start():
        train(config, flowers)

Every device holds the whole model and computes its share of each batch; the gradients are added
up, so that a step is the step of one device on the joint batch. On JAX this is
`keras.distribution.DataParallel`, on any number of machines. On TensorFlow it is
`tf.distribute.MirroredStrategy`, on one: Keras 3's variables do not take the values that
`MultiWorkerMirroredStrategy` hands them.

Outside of `start` all of this stands for one process on one device. Process 0 alone writes files.
"""

import contextlib
import dataclasses
import os
import signal
import tempfile
from pathlib import Path
from typing import Any

from diffusion.training.peers import is_loopback, meet, split_address


@dataclasses.dataclass
class _Here:
    """Where this process stands: devices first to first + local - 1 of `devices` are its own."""

    peers: Any = None
    devices: int = 1
    first: int = 0
    local: int = 1


_here = _Here()


@contextlib.contextmanager
def start(coordinator=None, num_processes=None, process_id=None, timeout=300.0):
    """Use all devices of all processes within the `with` block; gives a line that says which.

    coordinator: "host:port" of process 0; num_processes: how many there are; process_id: the number
        of this one. Left out, they come from the environment's KERAS_DISTRIBUTION_JOB_ADDRESSES
        (its first address), KERAS_DISTRIBUTION_NUM_PROCESSES and KERAS_DISTRIBUTION_PROCESS_ID; if
        they are not there either, this process is alone.
    timeout: seconds to wait for the others.

    Build or load models within. On JAX with several processes it must come before anything is
    computed. Raises ValueError for what cannot be right or what the backend cannot do, OSError
    where another process does not come. One that is lost later ends this one with status 2.
    """
    global _here
    import keras

    backend = keras.backend.backend()
    coordinator, count, number = _addresses(coordinator, num_processes, process_id)
    if backend not in ("jax", "tensorflow"):
        raise ValueError(f"Keras on {backend} does not distribute here: set KERAS_BACKEND=jax")
    if count > 1 and backend == "tensorflow":
        raise ValueError(
            "on TensorFlow, Keras 3 trains on the devices of one machine only (its variables do "
            "not take MultiWorkerMirroredStrategy's values): set KERAS_BACKEND=jax in all processes"
        )
    before = _here
    with contextlib.ExitStack() as stack:
        peers = None
        if count > 1:
            peers, jax_port = meet(coordinator, count, number, timeout)
            stack.enter_context(peers)
            _start_jax(split_address(coordinator)[0], jax_port, peers, timeout)
        _here = _on_jax(stack, peers) if backend == "jax" else _on_tensorflow(stack)
        try:
            yield _description(backend)
        finally:
            _here = before


def is_first():
    """Whether this process is the one that writes files and reports."""
    return _here.peers is None or _here.peers.number == 0


@contextlib.contextmanager
def single_process():
    """Have Keras act on this process alone within the block: to save a model, say.

    Otherwise any variable that it makes, were it for a moment, waits for the other processes.
    """
    import keras

    distribution = keras.distribution.distribution()
    keras.distribution.set_distribution(None)
    try:
        yield
    finally:
        keras.distribution.set_distribution(distribution)


def share(batch_size):
    """Which rows of each batch this process reads: a slice.

    Raises ValueError unless the devices can share a batch evenly.
    """
    if batch_size % _here.devices:
        raise ValueError(
            f"batch_size {batch_size} cannot be shared evenly by {_here.devices} devices: choose "
            f"a multiple of {_here.devices} (--batch-size), or fewer devices"
        )
    each = batch_size // _here.devices
    return slice(_here.first * each, (_here.first + _here.local) * each)


def agree(facts):
    """Wait for all processes; raise ValueError in all where what `facts()` returns differs.

    facts: a function, asked only where there are several; its dictionary is name -> value.
    """
    if _here.peers is not None:
        _here.peers.agree(facts())


@contextlib.contextmanager
def files_of_first(folder, *names):
    """Give a folder where each process finds process 0's files of these names, if they exist."""
    if _here.peers is None:
        yield folder
        return
    with tempfile.TemporaryDirectory() as copies:
        for name in names:
            exists = is_first() and (folder / name).exists()
            if _here.peers.from_first(b"yes" if exists else b"no") == b"no":
                continue
            content = _here.peers.from_first((folder / name).read_bytes() if exists else b"")
            if not is_first():
                (Path(copies) / name).write_bytes(content)
        yield folder if is_first() else Path(copies)


def ask_to_stop():
    """Have all processes stop, soon, after one and the same step: `told_to_stop` says after which.

    JAX does so on SIGTERM, for machines that are taken away on short notice. Returns False where
    this process is alone and need not ask.
    """
    if _here.peers is None:
        return False
    os.kill(os.getpid(), signal.SIGTERM)
    return True


def told_to_stop(step):
    """Whether all processes are to stop after this step; each must ask after each step."""
    if _here.peers is None:
        return False
    from jax.experimental.multihost_utils import reached_preemption_sync_point

    return reached_preemption_sync_point(step)


def _addresses(coordinator, count, number):
    """Fill in from the environment, under the names that Keras itself uses."""
    addresses = os.environ.get("KERAS_DISTRIBUTION_JOB_ADDRESSES", "")
    coordinator = coordinator or addresses.split(",")[0]
    given = {"--num-processes": count, "--process-id": number}
    for option, value in given.items():
        name = "KERAS_DISTRIBUTION_" + option.removeprefix("--").replace("-", "_").upper()
        value = os.environ.get(name) if value is None else value
        try:
            given[option] = None if value is None else int(value)
        except ValueError as error:
            raise ValueError(f"{name} must be a whole number, got {value!r}") from error
    count, number = given.values()
    if count is None and number is None and not coordinator:
        return None, 1, 0
    if count is None or number is None or not coordinator:
        raise ValueError("several processes need --coordinator, --num-processes and --process-id")
    if count < 1:
        raise ValueError(f"--num-processes must be 1 or more, got {count}")
    return coordinator, count, number


def _start_jax(host, port, peers, timeout):
    import jax

    bind_address = f"{host}:{port}" if is_loopback(host) and ":" not in host else None
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    jax.distributed.initialize(
        f"[{host}]:{port}" if ":" in host else f"{host}:{port}",
        peers.count,
        peers.number,
        cluster_detection_method="deactivate",  # else Slurm's settings would go before ours
        initialization_timeout=int(max(timeout, 60)),
        coordinator_bind_address=bind_address,
    )


def _on_jax(stack, peers):
    import jax
    import keras

    # The rows of a batch lie on the devices in this order.
    devices = sorted(jax.devices(), key=lambda device: (device.process_index, device.id))
    mine = [place for place, d in enumerate(devices) if d.process_index == jax.process_index()]
    if len(devices) > 1:
        names = [f"{device.platform}:{device.id}" for device in devices]
        distribution = keras.distribution.DataParallel(devices=names, auto_shard_dataset=False)
        stack.enter_context(distribution.scope())
    return _Here(peers, len(devices), mine[0], len(mine))


def _on_tensorflow(stack):
    import tensorflow as tf

    devices = tf.config.list_logical_devices("GPU") or tf.config.list_logical_devices("CPU")
    if len(devices) > 1:
        strategy = tf.distribute.MirroredStrategy([device.name for device in devices])
        stack.enter_context(strategy.scope())
    return _Here(None, len(devices), 0, len(devices))


def _description(backend):
    if _here.devices == 1:
        return f"one device on {backend}: nothing to distribute, training goes on with it alone"
    among = f", {_here.local} of them in this process" if _here.peers else ""
    by = "DataParallel" if backend == "jax" else "MirroredStrategy"
    return f"{_here.devices} devices{among}: {by} on {backend}"
