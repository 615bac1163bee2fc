"""Which number format the network computes in: what the machine is fast at."""

import os
from pathlib import Path

PRECISIONS = ("auto", "float32", "mixed_bfloat16")
BFLOAT16_FLAGS = {"avx512_bf16", "amx_bf16"}  # the processor multiplies bfloat16 by itself


def choose_precision(precision="auto"):
    """Return "float32" or "mixed_bfloat16"; "auto" becomes what this machine is fast at.

    bfloat16 pays on a TPU, on an NVIDIA GPU since Ampere (compute capability 8.0), and on a
    processor that multiplies bfloat16 by itself (Intel since Cooper Lake, AMD since Zen 4);
    elsewhere it is emulated, and slow. Weights, loss, moving average and optimizer are float32
    either way. Raises ValueError for another name.
    """
    if precision not in PRECISIONS:
        raise ValueError(f"no precision {precision!r}: choose one of {', '.join(PRECISIONS)}")
    if precision != "auto":
        return precision
    found = accelerators()
    fast = all(found.values()) if found else cpu_has_bfloat16()
    return "mixed_bfloat16" if fast else "float32"


def in_float32(network):
    """Return a new network like `network`, its bfloat16 layers in float32; weights not copied."""
    import keras

    def clone(layer):
        config = layer.get_config()
        if layer.dtype_policy.name == "mixed_bfloat16":
            config["dtype"] = "float32"
        return type(layer).from_config(config)

    return keras.models.clone_model(network, clone_function=clone)


def accelerators():
    """Return the GPUs or TPUs that Keras's backend sees: name -> whether bfloat16 is fast on it."""
    import keras  # here, so that the environment check can ask for the flags without Keras

    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        gpus = map(
            tf.config.experimental.get_device_details, tf.config.list_physical_devices("GPU")
        )
        return {gpu["device_name"]: gpu["compute_capability"] >= (8, 0) for gpu in gpus}
    if keras.backend.backend() == "jax":
        import jax

        others = [device for device in jax.devices() if device.platform != "cpu"]
        return {d.device_kind: float(getattr(d, "compute_capability", 8)) >= 8 for d in others}
    return {}


def cpu_has_bfloat16():
    """Return whether the processor multiplies bfloat16 natively (AVX512-BF16 or AMX; Linux)."""
    return bool(BFLOAT16_FLAGS & cpu_flags())


def cpu_flags():
    """Return the processor's features by the names of /proc/cpuinfo; none where it is absent."""
    return set(cpu_info().get("flags", "").split())


def cpu_info():
    """Return what /proc/cpuinfo says of the first processor, name -> text; {} without it."""
    try:
        first = Path("/proc/cpuinfo").read_text().split("\n\n")[0]
    except OSError:
        return {}
    pairs = (line.partition(":") for line in first.splitlines())
    return {name.strip(): text.strip() for name, _, text in pairs}


def cpu_cores():
    """Return how many CPU cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
