"""Which number format the network computes in: what the machine is fast at."""

from pathlib import Path

PRECISIONS = ("auto", "float32", "mixed_bfloat16")
BFLOAT16_FLAGS = {"avx512_bf16", "amx_bf16"}  # the processor multiplies bfloat16 by itself


def choose_precision(precision="auto"):
    """Return "float32" or "mixed_bfloat16"; "auto" becomes what this machine is fast at.

    bfloat16 pays where a GPU or TPU is there, or a processor that multiplies bfloat16 by itself
    (Intel since Cooper Lake, AMD since Zen 4); elsewhere it is emulated, and slow. Weights, loss,
    moving average and optimizer are float32 either way. Raises ValueError for another name.
    """
    if precision not in PRECISIONS:
        raise ValueError(f"no precision {precision!r}: choose one of {', '.join(PRECISIONS)}")
    if precision != "auto":
        return precision
    return "mixed_bfloat16" if has_accelerator() or cpu_has_bfloat16() else "float32"


def has_accelerator():
    """Return whether Keras's backend sees a GPU or TPU."""
    import keras  # here, so that the environment check can ask for the flags without Keras

    return any(not device.startswith("cpu") for device in keras.distribution.list_devices())


def cpu_has_bfloat16():
    """Return whether the processor multiplies bfloat16 natively (AVX512-BF16 or AMX; Linux)."""
    return bool(BFLOAT16_FLAGS & cpu_flags())


def cpu_flags():
    """Return the processor's features by the names of /proc/cpuinfo; none where it is absent."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return set()
    return next((set(line.split()) for line in lines if line.startswith("flags")), set())
