"""TensorFlow and JAX do the same: from the same weights, pictures, noises and times.

The tests' own process is one of the two, `here`; a process of its own is the other, `there`. Both
compute in float32, so that what they find differs by rounding alone.
"""

import importlib.util
import os
import subprocess
import sys

import keras
import numpy as np
import parity
import pytest
from conftest import ROOT

HERE = keras.backend.backend()
THERE = {"tensorflow": "jax", "jax": "tensorflow"}.get(HERE)
if THERE is None or importlib.util.find_spec(THERE) is None:
    pytest.skip(f"needs {THERE or 'one of the two'} beside {HERE}", allow_module_level=True)

# Each from start to end; then the last step by each, from what the other has saved before it.
PAIRS = [("here", "there"), ("here", "here-from-there"), ("there", "there-from-here")]


@pytest.fixture(scope="module")
def seen(tmp_path_factory):
    """What each side saw from the same start, and going on from what the other had saved."""
    folder = tmp_path_factory.mktemp("backends")
    parity.untrained().save(folder / "start.keras")
    seen = {"here": parity.first_half(folder, "here")}
    finished = subprocess.run(
        [sys.executable, ROOT / "tests" / "parity.py", folder],
        capture_output=True,
        text=True,
        env={**os.environ, "KERAS_BACKEND": THERE, "PYTHONPATH": str(ROOT)},
    )
    assert finished.returncode == 0, finished.stderr
    for name in ("there", "there-from-here"):
        with np.load(folder / f"{name}.npz") as stored:
            seen[name] = dict(stored)
    return seen | {"here-from-there": parity.second_half(folder, "there")}


def of(seen, *kind):
    """What was seen of one kind, in its order: of(seen, "network", 5)."""
    start = "/".join(map(str, kind)) + "/"
    return [value for key, value in seen.items() if key.startswith(start)]


@pytest.mark.parametrize("pair", PAIRS)
def test_the_same_noise_gives_the_same_pictures(seen, pair):
    one, other = (seen[side] for side in pair)
    for kind in ("unclipped", "pictures"):
        assert of(one, kind)
        for a, b in zip(of(one, kind), of(other, kind), strict=True):
            # Of the largest: asked about pure noise, the network is divided by a rate of 0.02.
            np.testing.assert_allclose(a, b, rtol=0, atol=1e-4 * np.abs(a).max())


@pytest.mark.parametrize("pair", PAIRS)
def test_a_training_step_leaves_the_same_loss_weights_average_and_optimizer(seen, pair):
    one, other = (seen[side] for side in pair)
    start = 0 if pair == PAIRS[0] else parity.STEPS - 1
    for step in range(start + 1, parity.STEPS + 1):
        np.testing.assert_allclose(one[f"loss/{step}"], other[f"loss/{step}"], rtol=1e-5)
        for part in parity.PARTS:
            values = (of(one, part, start), of(one, part, step), of(other, part, step))
            for index, (before, a, b) in enumerate(zip(*values, strict=True)):
                # Adam divides each gradient by its own size, so the rounding of one near zero
                # becomes part of a step: the way gone is compared, tensor by tensor.
                gone, apart = np.linalg.norm(a - before), np.linalg.norm(a - b)
                assert apart <= 0.005 * gone, f"{part} {index}, step {step}: {apart}, gone {gone}"
                assert gone > 0 or part == "optimizer"  # the learning rate rests


@pytest.mark.parametrize(("first", "then"), [("here", "there"), ("there", "here")])
def test_a_run_begun_on_one_backend_is_finished_on_the_other(seen, first, then):
    begun, finished = (seen[side]["run/losses"] for side in (first, f"{then}-from-{first}"))
    assert len(begun) == 2 and len(finished) == 3  # an epoch; two parts of the second
    np.testing.assert_array_equal(begun, finished[:2])
    assert seen[f"{then}-from-{first}"]["run/steps"] == 12
    assert finished[2] < 0.79  # who knows nothing has sqrt(2 / pi) = 0.798
