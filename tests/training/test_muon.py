"""Muon: its steps against a singular value decomposition, and AdamW where it does not apply."""

import keras
import numpy as np
import pytest

from diffusion.training.building import build, make_optimizer
from diffusion.training.config import get_preset
from diffusion.training.muon import Muon

SHAPES = {"kernel": (3, 3, 24, 40), "wide": (20, 70), "first": (2, 2, 3, 64), "bias": (40,)}


def stepped(optimizer, shape, seed=0):
    """Return the gradient, and what one step with it adds to a variable of zeros."""
    scales = np.geomspace(1, 0.1, shape[-1])
    gradient = np.random.default_rng(seed).normal(size=shape).astype("float32") * scales
    variable = keras.Variable(np.zeros(shape, "float32"), name="kernel")
    optimizer.build([variable])
    optimizer.apply([keras.ops.convert_to_tensor(gradient, "float32")])
    return gradient, np.asarray(variable)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("name", ["kernel", "wide"])
def test_a_step_goes_against_the_gradient_by_the_same_length_in_every_direction(name, precision):
    gradient, step = stepped(Muon(0.01, precision=precision), SHAPES[name])
    gradient, step = (each.reshape(-1, each.shape[-1]) for each in (gradient, step))
    u, _, v = np.linalg.svd(gradient, full_matrices=False)
    lengths = np.diag(u.T @ step @ v.T) / (-0.01 * 0.2 * max(step.shape) ** 0.5)
    assert lengths.min() > 0.6 and lengths.max() < 1.3
    across = step - u @ np.diag(np.diag(u.T @ step @ v.T)) @ v
    assert np.linalg.norm(across) < 0.1 * np.linalg.norm(step)


@pytest.mark.parametrize("name", ["first", "bias"])
def test_narrow_layers_and_what_is_no_matrix_are_updated_by_adamw(name):
    muon, adamw = Muon(0.01), keras.optimizers.AdamW(0.01, epsilon=1e-7)
    steps = [stepped(optimizer, SHAPES[name])[1] for optimizer in (muon, adamw)]
    np.testing.assert_allclose(*steps, rtol=1e-4)


def test_both_kinds_of_step_are_about_equally_large():
    optimizers = Muon(0.01), keras.optimizers.AdamW(0.01)
    rms = [np.sqrt(np.mean(stepped(each, SHAPES["kernel"])[1] ** 2)) for each in optimizers]
    # Liu et al.: 0.2 to 0.4 of AdamW's first step, which is as large as any later one.
    assert 0.1 < rms[0] / rms[1] < 0.5


def test_a_configuration_names_the_optimizer_and_its_numbers_reach_it():
    config = get_preset("tiny", optimizer="muon", gradient_norm=0.5, weight_decay=0.02)
    muon = make_optimizer(config, 0.003)
    assert isinstance(muon, Muon) and muon.precision == "float32"
    assert (muon.global_clipnorm, muon.weight_decay, muon.adam_weight_decay) == (0.5, 0.02, 0.02)
    assert float(muon.learning_rate) == pytest.approx(0.003)
    with pytest.raises(ValueError, match="no optimizer 'mun': choose one of adamw, muon"):
        build(get_preset("tiny", optimizer="mun"), 1)
