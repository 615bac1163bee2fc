"""Ask Keras and its backend, in a process of their own, whether they run and what they see.

Like `doctor.checks`, which reports it, this needs no package and runs under old Pythons.
"""

import importlib.util
import json
import os
import signal
import subprocess
import sys
from collections import namedtuple

Keras = namedtuple("Keras", "version backend gpus built_with_cuda")
Keras.__doc__ = "What Keras says of itself; `gpus` holds the names of those that its backend sees."

_QUESTIONS = """
import json
import keras

backend, gpus, built_with_cuda = keras.backend.backend(), [], None
if backend == "tensorflow":
    import tensorflow as tf

    built_with_cuda = tf.test.is_built_with_cuda()
    for gpu in tf.config.list_physical_devices("GPU"):
        details = tf.config.experimental.get_device_details(gpu)
        gpus.append(details.get("device_name", gpu.name))
elif backend == "jax":
    import jax

    gpus = [device.device_kind for device in jax.devices() if device.platform != "cpu"]
elif backend == "torch":
    import torch

    gpus = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
print(json.dumps([keras.__version__, backend, gpus, built_with_cuda]))
"""


def ask_keras(patience):
    """Return (`Keras`, None), or (None, what went wrong) if it does not answer in time.

    patience: in seconds. The process starts cold, so TensorFlow may take ten of them.
    """
    if importlib.util.find_spec("keras") is None:
        return None, "not installed"
    done = run([sys.executable, "-c", _QUESTIONS], patience)
    if done.returncode == 0:
        try:
            return Keras(*json.loads(last_line(done.stdout))), None
        except (TypeError, ValueError):
            pass
    trouble = last_line(done.stderr) or f"exit status {done.returncode}"
    if done.returncode < 0:  # how a processor without AVX meets TensorFlow's wheel, for one
        trouble = f"it crashes with {signal.Signals(-done.returncode).name}"
    if "KERAS_BACKEND" in os.environ:
        trouble += f" (KERAS_BACKEND={os.environ['KERAS_BACKEND']})"
    return None, f"does not run: {trouble}"


def run(command, patience):
    """Run a command to its end, at most `patience` seconds; too late is exit status 124."""
    try:
        return subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            timeout=patience,
            check=False,
        )
    except subprocess.TimeoutExpired:
        late = f"no answer within {patience:g} seconds"
        return subprocess.CompletedProcess(command, 124, stdout="", stderr=late)
    except OSError as error:
        return subprocess.CompletedProcess(command, 126, stdout="", stderr=str(error))


def last_line(text):
    """Return the last line that says something, "" if none does."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else ""
