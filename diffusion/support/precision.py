"""Choose the precision in which this machine computes fastest."""

import os
from pathlib import Path
from typing import Any

from diffusion.support.contracts import Network

PRECISIONS = ("auto", "float32", "mixed_bfloat16")
BFLOAT16_FLAGS = {"avx512_bf16", "amx_bf16"}  # native bfloat16 multiplication


def choose_precision(precision: str = "auto") -> str:
    """Return "float32" or "mixed_bfloat16"; "auto" picks the faster one on this machine.

    bfloat16 is fast on a TPU, on an NVIDIA GPU since Ampere (compute capability 8.0), and on a
    processor with bfloat16 instructions (Intel since Cooper Lake, AMD since Zen 4). Elsewhere it is
    emulated and slow. Weights, loss, moving average and optimizer are float32 either way.
    Raises ValueError for another name.
    """
    if precision not in PRECISIONS:
        raise ValueError(f"no precision {precision!r}: choose one of {', '.join(PRECISIONS)}")
    if precision != "auto":
        return precision
    found = accelerators()
    fast = all(found.values()) if found else cpu_has_bfloat16()
    return "mixed_bfloat16" if fast else "float32"


def in_float32(network: Network) -> Any:
    """Return a copy of `network` with its bfloat16 layers in float32; weights are not copied."""
    import keras

    def clone(layer):
        config = layer.get_config()
        if layer.dtype_policy.name == "mixed_bfloat16":
            config["dtype"] = "float32"
        return type(layer).from_config(config)

    return keras.models.clone_model(network, clone_function=clone)


def accelerators() -> dict[str, bool]:
    """Return the GPUs or TPUs that Keras's backend sees: name -> whether bfloat16 is fast on it."""
    import keras  # here, so that the environment check can read the CPU flags without Keras

    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        gpus = map(
            tf.config.experimental.get_device_details, tf.config.list_physical_devices("GPU")
        )
        return {
            gpu.get("device_name", "GPU"): gpu.get("compute_capability", (8, 0)) >= (8, 0)
            for gpu in gpus  # AMD's have no compute capability
        }
    if keras.backend.backend() == "jax":
        import jax

        others = [device for device in jax.devices() if device.platform != "cpu"]
        return {d.device_kind: float(getattr(d, "compute_capability", 8)) >= 8 for d in others}
    return {}


def cpu_has_bfloat16() -> bool:
    """Return whether the processor multiplies bfloat16 natively (AVX512-BF16 or AMX; Linux)."""
    return bool(BFLOAT16_FLAGS & cpu_flags())


def cpu_flags() -> set[str]:
    """Return the processor's features as /proc/cpuinfo names them; none where it is missing."""
    return set(cpu_info().get("flags", "").split())


def cpu_info() -> dict[str, str]:
    """Return the first processor's entry in /proc/cpuinfo, name -> text; {} where it is missing."""
    try:
        first = Path("/proc/cpuinfo").read_text().split("\n\n")[0]
    except OSError:
        return {}
    pairs = (line.partition(":") for line in first.splitlines())
    return {name.strip(): text.strip() for name, _, text in pairs}


def cpu_cores() -> int:
    """Return the number of CPU cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
