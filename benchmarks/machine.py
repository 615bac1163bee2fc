"""What a benchmark asks of the machine: its name, and how much memory a process took."""

import json
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

# A small process starts the one to be measured: the system counts a child's memory from its
# parent's size on, and the benchmark itself is large.
_LAUNCHER = """
import json, resource, subprocess, sys
done = subprocess.run(sys.argv[1:], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
unit = 1 if sys.platform == "darwin" else 1024
peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * unit
print(json.dumps([done.returncode, peak, done.stdout, done.stderr]))
"""


def peak_memory(*arguments):
    """Run Python with `arguments`; return its peak resident memory in bytes, and what it printed.

    Raises RuntimeError with its last line if it fails.
    """
    launched = subprocess.run(
        [sys.executable, "-c", _LAUNCHER, sys.executable, *map(str, arguments)],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    status, peak, output, complaint = json.loads(launched.stdout)
    if status != 0:
        last = (complaint.strip().splitlines() or ["it said nothing"])[-1]
        raise RuntimeError(f"{Path(str(arguments[0])).name} ended with status {status}: {last}")
    return peak, output


def device_memory():
    """Return the most bytes that this process has held on its first accelerator; None without."""
    if not accelerators():
        return None
    if keras.backend.backend() == "jax":
        import jax

        return jax.devices()[0].memory_stats()["peak_bytes_in_use"]
    import tensorflow as tf

    return tf.config.experimental.get_memory_info("GPU:0")["peak"]


def describe(precision):
    """Say what this runs on: a dictionary of short texts and numbers, for reports."""
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
