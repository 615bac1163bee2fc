"""Describe the machine and measure how much memory a process takes."""

import json
import os
import platform
import subprocess
import sys
from pathlib import Path

import keras

from diffusion.support.precision import (
    accelerators,
    choose_precision,
    cpu_cores,
    cpu_flags,
    cpu_info,
)

ROOT = Path(__file__).resolve().parents[1]
# A small process starts the one to be measured: the system counts a child's peak from its parent's
# size upwards, and the benchmark itself is large.
_LAUNCHER = """
import json, resource, subprocess, sys
done = subprocess.run(sys.argv[1:], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
unit = 1 if sys.platform == "darwin" else 1024
peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * unit
print(json.dumps([done.returncode, peak, done.stdout, done.stderr]))
"""


def peak_memory(*arguments) -> tuple[int, str]:
    """Run Python with `arguments`; return its peak resident memory in bytes, and what it printed.

    The process can import the project's packages, as for `-m`. Raises RuntimeError with its last
    line if it fails.
    """
    search = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    launched = subprocess.run(
        [sys.executable, "-c", _LAUNCHER, sys.executable, *map(str, arguments)],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(search)},
    )
    status, peak, output, errors = json.loads(launched.stdout)
    if status != 0:
        last = (errors.strip().splitlines() or ["no message"])[-1]
        name = Path(str(arguments[arguments[0] == "-m"])).name
        raise RuntimeError(f"{name} ended with status {status}: {last}")
    return peak, output


def device_memory() -> int | None:
    """Return this process's peak memory on its first accelerator in bytes; None without one."""
    if not accelerators():
        return None
    if keras.backend.backend() == "jax":
        import jax

        return jax.devices()[0].memory_stats()["peak_bytes_in_use"]
    import tensorflow as tf

    return tf.config.experimental.get_memory_info("GPU:0")["peak"]


def describe(precision: str) -> dict:
    """Describe what this runs on: a dictionary of short texts and numbers, for reports."""
    backend = keras.backend.backend()
    versions = [f"Python {platform.python_version()}", f"Keras {keras.__version__}"]
    versions.append(f"{backend} {sys.modules[backend].__version__}")
    wanted = ("avx2", "avx512f", "avx512_bf16", "amx_bf16")
    return {
        "processor": cpu_info().get("model name") or platform.processor(),
        "cores": cpu_cores(),
        "flags": [flag for flag in wanted if flag in cpu_flags()],
        "accelerators": list(accelerators()),
        "precision": choose_precision(precision),
        "versions": versions,
    }
