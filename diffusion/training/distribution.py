"""Train on several GPUs, or several machines, as on one: data parallelism.

    with distribution.start():
        train(config, flowers)

Every device holds the whole model and computes its share of each batch. The gradients are summed,
so a step equals the step of one device on the joint batch. On JAX this is
`keras.distribution.DataParallel`, on any number of machines. On TensorFlow it is
`tf.distribute.MirroredStrategy`, on one machine: Keras 3's variables do not accept the values that
`MultiWorkerMirroredStrategy` gives them.

Outside `start`, these functions describe one process on one device. Only process 0 writes files.
"""

import contextlib
import dataclasses
import json
import os
import signal
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from diffusion.training.rendezvous import addresses, rendezvous


@dataclasses.dataclass
class _Here:
    """This process among all: devices first to first + local - 1 of `devices` are its own."""

    number: int = 0
    count: int = 1
    devices: int = 1
    first: int = 0
    local: int = 1


_here = _Here()


@contextlib.contextmanager
def start(
    coordinator: str | None = None,
    num_processes: int | None = None,
    process_id: int | None = None,
    timeout: float = 300.0,
) -> Iterator[str]:
    """Use all devices of all processes within the `with` block; yields a line that names them.

    coordinator: "host:port" of process 0. num_processes: number of processes. process_id: this
        one's number. Defaults: the environment's KERAS_DISTRIBUTION_JOB_ADDRESSES (the first
        address), KERAS_DISTRIBUTION_NUM_PROCESSES and KERAS_DISTRIBUTION_PROCESS_ID. With
        neither, this process trains alone.
    timeout: seconds to wait for the other processes.

    Build or load models within the block. On JAX with several processes, enter it before anything
    is computed. Raises ValueError for settings that are wrong or that the backend does not
    support, and OSError if process 0 cannot be reached. If another process is lost later, JAX
    aborts this one; `scripts/train.py` reports that in one line (`supervisor`).
    """
    global _here
    import keras

    backend = keras.backend.backend()
    coordinator, count, number = addresses(coordinator, num_processes, process_id)
    if backend not in ("jax", "tensorflow"):
        raise ValueError(f"Keras on {backend} cannot distribute training: set KERAS_BACKEND=jax")
    if count > 1 and backend == "tensorflow":
        raise ValueError(
            "on TensorFlow, Keras 3 trains on the devices of one machine only (its variables do "
            "not accept MultiWorkerMirroredStrategy's values): set KERAS_BACKEND=jax everywhere"
        )
    before = _here
    with contextlib.ExitStack() as stack:
        if count > 1:
            stack.enter_context(rendezvous(coordinator, count, number, timeout))
        use_devices = _on_jax if backend == "jax" else _on_tensorflow
        _here = use_devices(stack, number, count)
        try:
            yield _description(backend)
        finally:
            _here = before


def is_main_process() -> bool:
    """Whether this process is the one that writes files and reports."""
    return _here.number == 0


@contextlib.contextmanager
def single_process() -> Iterator[None]:
    """Have Keras act on this process alone within the block: to save a model, for example.

    Otherwise any variable created there, even a temporary one, waits for the other processes.
    """
    import keras

    distribution = keras.distribution.distribution()
    keras.distribution.set_distribution(None)
    try:
        yield
    finally:
        keras.distribution.set_distribution(distribution)


def share(batch_size: int) -> slice:
    """Return the rows of each batch that this process reads.

    Raises ValueError unless the devices can share a batch evenly.
    """
    if batch_size % _here.devices:
        raise ValueError(
            f"batch_size {batch_size} cannot be shared evenly by {_here.devices} devices: choose "
            f"a multiple of {_here.devices} (--batch-size), or fewer devices"
        )
    each = batch_size // _here.devices
    return slice(_here.first * each, (_here.first + _here.local) * each)


def require_agreement(facts: Callable[[], dict]) -> None:
    """Wait for all processes; raise ValueError in all of them if their facts differ.

    facts: returns name -> value, of what JSON can write; called only with several processes.
    """
    if _here.count == 1:
        return
    from jax.experimental.multihost_utils import process_allgather

    content = np.frombuffer(json.dumps(facts()).encode(), "uint8")
    sizes = process_allgather(np.int32(len(content)))
    padded = np.zeros(sizes.max(), "uint8")
    padded[: len(content)] = content
    rows = zip(process_allgather(padded), sizes, strict=True)
    first, *others = [json.loads(row[:size].tobytes()) for row, size in rows]
    for number, theirs in enumerate(others, 1):
        for name in first:
            if theirs.get(name) != first[name]:
                raise ValueError(
                    f"process {number} has {name} {theirs.get(name)}, process 0 has "
                    f"{first[name]}: start all processes with the same options and data"
                )


@contextlib.contextmanager
def main_process_files(folder: Path, *names: str) -> Iterator[Path]:
    """Yield a folder that holds process 0's files of these names, as far as they exist."""
    if _here.count == 1:
        yield folder
        return
    from jax.experimental.multihost_utils import broadcast_one_to_all

    with tempfile.TemporaryDirectory() as copies:
        for name in names:
            exists = is_main_process() and (folder / name).exists()
            content = np.fromfile(folder / name, "uint8") if exists else np.zeros(0, "uint8")
            size = int(broadcast_one_to_all(np.int32(len(content))))
            content = broadcast_one_to_all(np.resize(content, size)) if size else content
            if size and not is_main_process():
                content.tofile(Path(copies) / name)
        yield folder if is_main_process() else Path(copies)


def request_stop() -> bool:
    """Have all processes stop soon, after the same step: `stop_requested` says which.

    JAX does so on SIGTERM. Returns False if this process is alone and can stop by itself.
    """
    if _here.count == 1:
        return False
    os.kill(os.getpid(), signal.SIGTERM)
    return True


def stop_requested(step: int) -> bool:
    """Whether all processes are to stop after this step; call it after every step."""
    if _here.count == 1:
        return False
    from jax.experimental.multihost_utils import reached_preemption_sync_point

    return reached_preemption_sync_point(step)


def _on_jax(stack, number, count):
    import jax
    import keras

    # The rows of a batch lie on the devices in this order.
    devices = sorted(jax.devices(), key=lambda device: (device.process_index, device.id))
    owners = [device.process_index for device in devices]
    if len(devices) > 1:
        names = [f"{device.platform}:{device.id}" for device in devices]
        distribution = keras.distribution.DataParallel(devices=names, auto_shard_dataset=False)
        stack.enter_context(distribution.scope())
    return _Here(number, count, len(devices), owners.index(number), owners.count(number))


def _on_tensorflow(stack, number, count):
    import tensorflow as tf

    devices = tf.config.list_logical_devices("GPU") or tf.config.list_logical_devices("CPU")
    if len(devices) > 1:
        strategy = tf.distribute.MirroredStrategy([device.name for device in devices])
        stack.enter_context(strategy.scope())
    return _Here(devices=len(devices), local=len(devices))


def _description(backend):
    if _here.devices == 1:
        return f"one device on {backend}: nothing to distribute, training continues on it alone"
    among = f", {_here.local} of them in this process" if _here.count > 1 else ""
    by = "DataParallel" if backend == "jax" else "MirroredStrategy"
    return f"{_here.devices} devices{among}: {by} on {backend}"
