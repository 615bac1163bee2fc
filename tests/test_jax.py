"""The same library under KERAS_BACKEND=jax, in a process of its own."""

import importlib.util
import os
import subprocess
import sys

import pytest
from conftest import ROOT

PROGRAM = """
import sys
import numpy as np
from diffusion.config import get_preset
from diffusion.data import load_flowers
from diffusion.training import load_model, train

folder = sys.argv[1]
config = get_preset("tiny", epochs=3, half_size_epochs=1)
flowers = load_flowers("painted", 16, painted=48, cache_dir=folder + "/cache", progress=False)
straight = train(config, flowers, folder + "/a", verbose=0)
for max_steps in (4, 9, None):  # amid an epoch of six steps, at half size and at full size
    stopped = train(config, flowers, folder + "/b", max_steps=max_steps, resume=True, verbose=0)
for a, b in zip(straight.model.get_weights(), stopped.model.get_weights(), strict=True):
    np.testing.assert_array_equal(a, b)

model = load_model(folder + "/a")
drawn = model.generate(2, 3, seed=1)
np.testing.assert_array_equal(drawn, straight.model.generate(2, 3, seed=1))
assert np.isfinite(drawn).all() and straight.losses[-1] < 0.795

before = [np.array(w) for w in model.ema_network.get_weights()]
model.train_on_batch(flowers.images[:8])
kept = min(0.999, (1 + 19) / (10 + 19))
for average, old, weight in zip(
    model.ema_network.get_weights(), before, model.network.get_weights(), strict=True
):
    np.testing.assert_allclose(average, kept * old + (1 - kept) * weight, rtol=1e-4, atol=1e-6)
print("agreed")
"""


@pytest.mark.skipif(importlib.util.find_spec("jax") is None, reason="JAX is not installed")
def test_training_average_resume_sampling_and_saving_work_on_jax(tmp_path):
    finished = subprocess.run(
        [sys.executable, "-c", PROGRAM, tmp_path],
        cwd=ROOT,
        capture_output=True,
        text=True,
        env={**os.environ, "KERAS_BACKEND": "jax"},
    )
    assert finished.returncode == 0, finished.stderr
    assert finished.stdout == "agreed\n"
