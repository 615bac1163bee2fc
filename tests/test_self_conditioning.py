"""Self-conditioning: what the network receives, when, and that no gradient flows through it."""

import keras
import numpy as np
import pytest
from keras import ops

from diffusion.latents import initial_noise
from diffusion.model import DiffusionModel
from diffusion.samplers import SAMPLERS
from diffusion.schedules import OffsetCosineSchedule
from diffusion.self_conditioning import estimate_or_zeros
from diffusion.unet import build_unet


def make_model(painted, kind=DiffusionModel):
    """A small self-conditioned model whose last layer is not zero."""
    keras.utils.set_random_seed(0)
    network = build_unet(16, (8, 8), 1, 8, self_conditioning=True)
    kernel = network.get_layer("pred_noises").kernel
    kernel.assign(0.3 * np.random.default_rng(0).normal(size=kernel.shape))
    model = kind(network, OffsetCosineSchedule())
    model.adapt(painted.images)
    return model


@pytest.fixture(scope="module")
def conditioned(painted):
    return make_model(painted)


def test_the_earlier_estimate_reaches_the_prediction(conditioned):
    noise = initial_noise(2, 16, seed=0)
    rates = np.full((2, 1, 1, 1), 0.5**0.5, "float32")
    without = np.asarray(conditioned.denoise(noise, rates, rates)[0])
    zeros, shown = (
        np.asarray(conditioned.denoise(noise, rates, rates, earlier_images=earlier)[0])
        for earlier in (np.zeros(noise.shape, "float32"), np.asarray(noise))
    )
    np.testing.assert_array_equal(without, zeros)
    assert np.abs(without - shown).max() > 1e-3


@pytest.mark.parametrize("name", SAMPLERS)
def test_every_sampler_passes_the_last_prediction_on_and_starts_afresh_each_time(
    conditioned, name, monkeypatch
):
    seen, denoise = [], conditioned.denoise

    def recording(noisy_images, noise_rates, signal_rates, earlier_images=None):
        predictions = denoise(noisy_images, noise_rates, signal_rates, False, earlier_images)
        seen.append((earlier_images, predictions[1]))
        return predictions

    noise = initial_noise(1, 16, seed=0)
    options = {"seed": 1} if "ddpm" in name or "sde" in name else {}
    monkeypatch.setattr(conditioned, "denoise", recording)
    for _ in range(2):
        conditioned.reverse_diffusion(noise, 5, SAMPLERS[name], **options)
    half = len(seen) // 2
    for run in (seen[:half], seen[half:]):
        assert len(run) > 3 and run[0][0] is None
        assert all(run[i + 1][0] is run[i][1] for i in range(len(run) - 1))


def test_half_of_the_calls_give_the_estimate_and_half_zeros():
    seed, calls = keras.random.SeedGenerator(0), 400
    image = np.ones((1, 1, 1, 1), "float32")
    shown = [np.ravel(estimate_or_zeros(lambda: 3 * image, image, seed)) for _ in range(calls)]
    assert set(np.ravel(shown)) == {0.0, 3.0}
    assert abs(np.mean(shown) / 3 - 0.5) < 4 * 0.5 / np.sqrt(calls)


def step_on(painted, estimate):
    """Weights and statistics after one step with an estimate of the given kind."""

    class Fixed(DiffusionModel):
        def first_estimate(self, *arguments):
            images = super().first_estimate(*arguments)
            return ops.convert_to_tensor(self.fixed) if hasattr(self, "fixed") else images

    model = make_model(painted, Fixed)
    random = np.random.default_rng(0)
    noises = random.normal(size=(8, 16, 16, 3)).astype("float32")
    model.sample_noises_and_times = lambda shape: (noises, np.full((8, 1, 1, 1), 0.4, "float32"))
    if estimate == "a constant":
        rates = model.schedule(np.full((8, 1, 1, 1), 0.4, "float32"))
        noisy_images = rates[1] * model.normalize(painted.images[:8]) + rates[0] * noises
        model.fixed = ops.convert_to_numpy(model.first_estimate(noisy_images, *rates, True))
    model.compile(keras.optimizers.SGD(0.1), loss="mean_squared_error")
    model.train_on_batch(painted.images[:8])
    return model.get_weights()


@pytest.mark.slow
def test_no_gradient_flows_through_the_estimate_and_no_statistics_change(painted, monkeypatch):
    """A step with the network's estimate equals one with the same numbers as constants."""
    monkeypatch.setattr(keras.random, "uniform", lambda *args, **kwargs: ops.zeros(()))  # always
    both = step_on(painted, "the network's"), step_on(painted, "a constant")
    for computed, constant in zip(*both, strict=True):
        np.testing.assert_allclose(computed, constant, rtol=1e-5, atol=1e-6)
