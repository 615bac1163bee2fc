"""Under KERAS_BACKEND=jax the library works without TensorFlow: importing it fails here."""

import importlib.util
import os
import subprocess
import sys

import pytest
from conftest import ROOT

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(importlib.util.find_spec("jax") is None, reason="JAX is not installed"),
]

PROGRAM = """
import sys
import numpy as np
from diffusion.training.config import get_preset
from diffusion.data.flowers import load_flowers
from diffusion.training.loop import load_model, train

folder = sys.argv[1]
config = get_preset("tiny", epochs=3, half_size_epochs=1)
flowers = load_flowers("painted", 16, painted=48, cache_dir=folder + "/cache", progress=False)
straight = train(config, flowers, folder + "/a", verbose=0)
for max_steps in (9, None):  # first stop in the middle of the second epoch, after a half-size one
    stopped = train(config, flowers, folder + "/b", max_steps=max_steps, resume=True, verbose=0)
for a, b in zip(straight.model.get_weights(), stopped.model.get_weights(), strict=True):
    np.testing.assert_array_equal(a, b)

model = load_model(folder + "/a")
images = model.generate(2, 3, seed=1)
np.testing.assert_array_equal(images, straight.model.generate(2, 3, seed=1))
assert np.isfinite(images).all() and straight.losses[-1] < 0.795

before = [np.array(w) for w in model.ema_network.get_weights()]
model.train_on_batch(flowers.images[:8])
kept = min(0.999, (1 + 19) / (10 + 19))
for average, old, weight in zip(
    model.ema_network.get_weights(), before, model.network.get_weights(), strict=True
):
    np.testing.assert_allclose(average, kept * old + (1 - kept) * weight, rtol=1e-4, atol=1e-6)
print("agreed")
"""

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
    stand_in = folder / "stand-in" / "tensorflow"
    stand_in.mkdir(parents=True, exist_ok=True)
    (stand_in / "__init__.py").write_text("raise ImportError('something imports TensorFlow')")
    ours = {
        "KERAS_BACKEND": "jax",
        "PYTHONPATH": os.pathsep.join([str(stand_in.parent), str(ROOT)]),
        # Compile everything only once.
        "JAX_COMPILATION_CACHE_DIR": str(folder / "compiled"),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0.1",
    }
    finished = subprocess.run(
        [sys.executable, *map(str, command)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        env={**os.environ, **ours},
    )
    assert finished.returncode == 0, finished.stderr
    return finished.stdout


def test_training_average_resume_sampling_and_saving_work_without_tensorflow(tmp_path):
    assert run(tmp_path, "-c", PROGRAM, tmp_path) == "agreed\n"


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
