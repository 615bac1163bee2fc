"""Under KERAS_BACKEND=jax the library works without TensorFlow: importing it fails here."""

import importlib.util
import os

import pytest
from processes import ROOT, python

needs_jax = pytest.mark.skipif(
    importlib.util.find_spec("jax") is None, reason="JAX is not installed"
)
pytestmark = [pytest.mark.slow, needs_jax]


PROGRAM = """
import sys
import numpy as np
from diffusion.training.config import get_preset
from diffusion.data.flowers import load_flowers
from diffusion.training.loop import load_model, train

folder = sys.argv[1]
config = get_preset("tiny", epochs=3, half_size_epochs=1, labels=True, network=sys.argv[2])
flowers = load_flowers("painted", 16, painted=48, cache_dir=folder + "/cache", progress=False)
straight = train(config, flowers, folder + "/a", verbose=0)
for max_steps in (9, None):  # first stop in the middle of the second epoch, after a half-size one
    stopped = train(config, flowers, folder + "/b", max_steps=max_steps, resume=True, verbose=0)
np.testing.assert_equal(stopped.model.get_weights(), straight.model.get_weights())

model = load_model(folder + "/a")
options = {"seed": 1, "labels": flowers.class_names[3], "guidance": 2}
images = model.generate(2, 3, **options)
np.testing.assert_array_equal(images, straight.model.generate(2, 3, **options))
assert np.isfinite(images).all() and straight.losses[-1] < 0.795
print("agreed")
"""

IN_BFLOAT16 = """
import sys
from diffusion import load_model
layers = load_model(sys.argv[1]).network.layers
assert {layer.compute_dtype for layer in layers} == {"bfloat16", "float32"}
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


@pytest.mark.parametrize("network", ["unet", "modern_unet", "transformer"])
def test_training_resume_sampling_and_saving_work_without_tensorflow(tmp_path, network):
    assert run(tmp_path, "-c", PROGRAM, tmp_path, network) == "agreed\n"


def test_the_command_lines_work_without_tensorflow_and_in_bfloat16(tmp_path):
    trained, picture = tmp_path / "run", tmp_path / "flowers.png"
    said = run(
        *(tmp_path, "scripts/train.py", "--preset", "tiny", "--epochs", "1"),
        *("--data-dir", "painted", "--precision", "mixed_bfloat16", "--output", trained),
        *("--labels", "--label-dropout", "0.2", "--gradient-norm", "1"),
    )
    assert "6 steps of 8 pictures" in said
    said = run(
        *(tmp_path, "scripts/generate.py", "--model", trained, "--num-images", "2"),
        *("--steps", "2", "--output", picture),
    )
    assert "2 images" in said and picture.stat().st_size > 1000
    run(tmp_path, "-c", IN_BFLOAT16, trained)
