"""TensorFlow and JAX agree, given the same weights, images, noises and times.

One of them, `here`, is the tests' own process; the other, `there`, runs in a second process. Both
compute in float32, so their results differ only by rounding.
"""

import importlib.util

import keras
import numpy as np
import parity
import pytest
from processes import python

HERE = keras.backend.backend()
THERE = {"tensorflow": "jax", "jax": "tensorflow"}.get(HERE)
if THERE is None or importlib.util.find_spec(THERE) is None:
    pytest.skip(f"needs {THERE or 'TensorFlow or JAX'} beside {HERE}", allow_module_level=True)

pytestmark = pytest.mark.slow

# Each from start to end; then the last step by each, from what the other saved before it.
PAIRS = [("here", "there"), ("here", "here-from-there"), ("there", "there-from-here")]


@pytest.fixture(scope="module")
def seen(tmp_path_factory):
    """Results of each side from the same start, and continuing from what the other saved."""
    folder = tmp_path_factory.mktemp("backends")
    parity.untrained().save(folder / "start.keras")
    seen = {"here": parity.first_half(folder, "here")}
    python("tests/parity.py", folder, KERAS_BACKEND=THERE, PYTHONPATH=".")
    seen |= {name: dict(np.load(folder / f"{name}.npz")) for name in ("there", "there-from-here")}
    return seen | {"here-from-there": parity.second_half(folder, "there")}


def of(seen, *kind):
    """Return the results of one kind, in order: of(seen, "network", 5)."""
    start = "/".join(map(str, kind)) + "/"
    return [value for key, value in seen.items() if key.startswith(start)]


@pytest.mark.parametrize("pair", PAIRS)
def test_the_same_noise_gives_the_same_images(seen, pair):
    one, other = (seen[side] for side in pair)
    for kind in ("unclipped", "images"):
        assert of(one, kind)
        for a, b in zip(of(one, kind), of(other, kind), strict=True):
            # Relative to the largest: at pure noise the prediction is divided by a rate of 0.02.
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
                # Adam divides each gradient by its own size, which amplifies the rounding of one
                # near zero: the difference is compared with the update, tensor by tensor.
                update, difference = np.linalg.norm(a - before), np.linalg.norm(a - b)
                assert difference <= 0.005 * update, (part, index, step, difference, update)
                assert update > 0 or part == "optimizer"  # the learning rate is constant


@pytest.mark.parametrize(("first", "then"), [("here", "there"), ("there", "here")])
def test_a_run_begun_on_one_backend_can_finish_on_the_other(seen, first, then):
    begun, finished = (seen[side]["run/losses"] for side in (first, f"{then}-from-{first}"))
    assert len(begun) == 2 and len(finished) == 3  # an epoch; two parts of the second
    np.testing.assert_array_equal(begun, finished[:2])
    assert seen[f"{then}-from-{first}"]["run/steps"] == 12
    assert finished[2] < 0.79  # predicting zero gives sqrt(2 / pi) = 0.798
