"""Meet the processes that train as one on JAX.

JAX's coordination service, in process 0, waits for all of them and watches their heartbeats.
"""

import atexit
import contextlib
import os
import socket
import sys
import time
from collections.abc import Iterator

HEARTBEAT_SECONDS = 30  # a process that sends none for so long is lost


def addresses(
    coordinator: str | None, count: int | None, number: int | None
) -> tuple[str, int, int]:
    """Complete and check the arguments of `start`; ("", 1, 0) if this process is alone."""
    listed = os.environ.get("KERAS_DISTRIBUTION_JOB_ADDRESSES", "")
    coordinator = coordinator or listed.split(",")[0]
    count = _from_environment("KERAS_DISTRIBUTION_NUM_PROCESSES", count)
    number = _from_environment("KERAS_DISTRIBUTION_PROCESS_ID", number)
    if not coordinator and (count, number) in ((None, None), (1, 0)):
        return "", 1, 0
    if count is None or number is None or not coordinator:
        raise ValueError("several processes need --coordinator, --num-processes and --process-id")
    if count < 1:
        raise ValueError(f"--num-processes must be 1 or more, got {count}")
    if not 0 <= number < count:
        raise ValueError(f"--process-id must be 0 to {count - 1}, got {number}")
    host, _, port = coordinator.rpartition(":")
    if not host or not port.isdecimal() or not 0 < int(port) < 65536:
        raise ValueError(f"--coordinator must be HOST:PORT of process 0, got {coordinator!r}")
    return coordinator, count, number


def _from_environment(name, value):
    value = os.environ.get(name) if value is None else value
    try:
        return None if value is None else int(value)
    except ValueError as error:
        raise ValueError(f"{name} must be a whole number, got {value!r}") from error


@contextlib.contextmanager
def rendezvous(coordinator: str, count: int, number: int, timeout: float) -> Iterator[None]:
    """Meet the other processes at the coordinator, and train with them within the block.

    JAX aborts this process if one of the others does not come within `timeout` seconds, or is lost
    later. Raises OSError for an unknown host, ValueError for numbers of processes or devices that
    do not match.
    """
    import jax
    from jax.experimental.multihost_utils import sync_global_devices

    host, port = coordinator.rsplit(":", 1)
    loopback = host in ("localhost", "[::1]") or host.startswith("127.")
    _check_address(coordinator, host.strip("[]") if loopback or number else "", int(port), number)
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    try:
        jax.distributed.initialize(
            coordinator,
            count,
            number,
            cluster_detection_method="deactivate",  # else Slurm's settings would override ours
            initialization_timeout=max(int(timeout), 1),
            heartbeat_timeout_seconds=HEARTBEAT_SECONDS,
            # Behind a router, the name that others use for this machine may not be its own.
            coordinator_bind_address=coordinator if loopback else f"[::]:{port}",
        )
        owners = [device.process_index for device in jax.devices()]
        devices = [owners.count(process) for process in range(jax.process_count())]
        if len(devices) != count:
            raise ValueError(
                f"process {number} has --num-processes {count}, process 0 has {len(devices)}: "
                "start all processes with the same number"
            )
        if len(set(devices)) > 1:
            raise ValueError(
                f"processes 0 to {count - 1} have {devices} devices: JAX needs the same number in "
                "each (CUDA_VISIBLE_DEVICES)"
            )
        # Gloo connects now: it allows 30 s for that, and loading the data may take longer.
        sync_global_devices("rendezvous")
        yield
    except BaseException as error:
        if "Gloo" in str(error) or "NCCL" in str(error):
            # A connection broke. If a process is lost, JAX names it when it aborts this one.
            time.sleep(HEARTBEAT_SECONDS + 10)
        # JAX's own exit would wait for processes that do not come.
        foreseen = isinstance(error, (ValueError, OSError, RuntimeError, SystemExit))
        interrupted = isinstance(error, KeyboardInterrupt)
        atexit.register(_end, 130 if interrupted else 2 if foreseen else 1)
        raise


def _check_address(coordinator, host, port, number):
    """Raise OSError for an unknown host, or a port that is taken: JAX would crash, or wait."""
    try:
        if number == 0:
            family = socket.AF_INET6 if ":" in host else socket.AF_INET
            socket.create_server((host, port), family=family).close()
        else:
            socket.getaddrinfo(host, port)
    except socket.gaierror as error:
        raise OSError(f"no host {host!r}: check --coordinator, {coordinator}") from error
    except OSError as error:
        raise OSError(
            f"process 0 cannot listen at {coordinator} ({error.strerror}): choose another port"
        ) from error


def _end(status):
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)
