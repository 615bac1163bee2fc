"""Under KERAS_BACKEND=jax the library works without TensorFlow: importing it fails here."""

import importlib.util
import os

import pytest
from processes import ROOT, python

needs_jax = pytest.mark.skipif(
    importlib.util.find_spec("jax") is None, reason="JAX is not installed"
)
pytestmark = [pytest.mark.slow, needs_jax]


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
    resuming = "resumes_to_the_bit or follows_its_formula or keeps_input_output_and_weights"
    files = (f"tests/test_{name}.py" for name in ("objectives", "model", "unet"))
    assert "4 passed" in run(tmp_path, "-m", "pytest", "-k", resuming, *files)


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
