"""Which precision a machine gets."""

import keras
import pytest

from diffusion.support import precision
from diffusion.support.precision import accelerators, choose_precision, cpu_flags


@pytest.mark.parametrize(
    ("found", "cpu", "expected"),
    [
        ({}, False, "float32"),
        ({}, True, "mixed_bfloat16"),
        ({"an H100": True}, False, "mixed_bfloat16"),
        ({"a T4": False}, True, "float32"),  # the GPU decides
    ],
)
def test_auto_is_what_the_machine_is_fast_at(monkeypatch, found, cpu, expected):
    monkeypatch.setattr(precision, "accelerators", lambda: found)
    monkeypatch.setattr(precision, "cpu_has_bfloat16", lambda: cpu)
    assert choose_precision("auto") == expected
    assert choose_precision("float32") == "float32"


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="mocks TensorFlow's devices")
def test_gpus_are_told_apart_by_their_compute_capability(monkeypatch):
    import tensorflow as tf

    assert isinstance(accelerators(), dict)
    cards = {"T4": (7, 5), "A100": (8, 0), "H100": (9, 0)}
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind: list(cards))
    monkeypatch.setattr(
        tf.config.experimental,
        "get_device_details",
        lambda card: {"device_name": card, "compute_capability": cards[card]},
    )
    assert accelerators() == {"T4": False, "A100": True, "H100": True}


def test_cpu_flags_come_from_the_system_or_not_at_all(monkeypatch, tmp_path):
    (tmp_path / "cpuinfo").write_text("processor\t: 0\nflags\t\t: fpu avx512_bf16 sse\n")
    monkeypatch.setattr(precision, "Path", lambda path: tmp_path / "cpuinfo")
    assert {"avx512_bf16", "sse"} <= cpu_flags() and precision.cpu_has_bfloat16()
    monkeypatch.setattr(precision, "Path", lambda path: tmp_path / "absent")
    assert cpu_flags() == set() and not precision.cpu_has_bfloat16()
