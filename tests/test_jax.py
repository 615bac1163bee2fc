"""Under KERAS_BACKEND=jax the library works without TensorFlow: importing it fails here."""

import importlib.util
import os

import pytest
from processes import ROOT, python

needs_jax = pytest.mark.skipif(
    importlib.util.find_spec("jax") is None, reason="JAX is not installed"
)
pytestmark = [pytest.mark.slow, needs_jax]

BFLOAT16 = """
import sys
import numpy as np
from diffusion.training.config import get_preset
from diffusion.data.flowers import load_flowers
from diffusion.training.loop import load_model, train

flowers = load_flowers("painted", 16, painted=48, cache_dir=sys.argv[1], progress=False)
float32 = train(get_preset("tiny", epochs=1), flowers, sys.argv[1] + "/float32", verbose=0)
loss = train(
    get_preset("tiny", epochs=1, precision="mixed_bfloat16"), flowers, sys.argv[2], resume=True
).losses[0]
assert loss != float32.losses[0] and abs(loss / float32.losses[0] - 1) < 0.01
model = load_model(sys.argv[2])
assert {layer.compute_dtype for layer in model.network.layers} >= {"bfloat16", "float32"}
assert {variable.dtype for variable in model.network.variables} == {"float32"}
print("agreed")
"""


def run(folder, *command):
    """Run a program on JAX, where TensorFlow seems to be installed but cannot be imported."""
    stand_in = folder / "stand-in"
    stand_in.mkdir(exist_ok=True)
    (stand_in / "tensorflow.py").write_text("raise ImportError('something imports TensorFlow')")
    return python(
        *command,
        KERAS_BACKEND="jax",
        PYTHONPATH=os.pathsep.join([str(stand_in), str(ROOT)]),
        # Compile everything only once.
        JAX_COMPILATION_CACHE_DIR=str(folder / "compiled"),
        JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS="0.1",
    )


def test_training_average_resume_sampling_and_saving_work_without_tensorflow(tmp_path):
    resuming = (
        "test_objectives.py::test_a_run_resumes_to_the_bit_and_generates_the_same_after_a_reload"
    )
    average = "test_model.py::test_the_average_follows_its_formula_step_by_step"
    printed = run(tmp_path, "-m", "pytest", f"tests/{resuming}", f"tests/{average}")
    assert "2 passed" in printed


def test_the_command_lines_work_without_tensorflow_and_in_bfloat16(tmp_path):
    trained, picture = tmp_path / "run", tmp_path / "flowers.png"
    said = run(
        *(tmp_path, "scripts/train.py", "--preset", "tiny", "--epochs", "1"),
        *("--data-dir", "painted", "--precision", "mixed_bfloat16", "--output", trained),
    )
    assert "6 steps of 8 pictures" in said
    said = run(
        *(tmp_path, "scripts/generate.py", "--model", trained, "--num-images", "2"),
        *("--steps", "2", "--output", picture),
    )
    assert "2 images" in said and picture.stat().st_size > 1000
    assert run(tmp_path, "-c", BFLOAT16, tmp_path, trained) == "agreed\n"
