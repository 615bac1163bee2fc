"""Objectives: three equivalent targets, and weights that mean the same for each."""

import json
import zipfile

import keras
import numpy as np
import pytest
from keras import ops

from diffusion.latents import initial_noise
from diffusion.model import DiffusionModel
from diffusion.objectives import (
    OBJECTIVES,
    WEIGHTINGS,
    MinSNRWeighting,
    NoiseObjective,
    Objective,
    P2Weighting,
    VelocityObjective,
    make_objective,
)
from diffusion.schedules import OffsetCosineSchedule
from diffusion.training.building import build, load_model
from diffusion.training.config import get_preset
from diffusion.training.loop import train
from diffusion.unet import build_unet

ANGLES = np.linspace(0.05, 1.52, 40).reshape(-1, 1, 1, 1)  # SNR from 400 to 0.0026
NOISE_RATES, SIGNAL_RATES = RATES = np.float32([np.sin(ANGLES), np.cos(ANGLES)])


def mixture():
    """Images, noises and noisy images, one for each of ANGLES."""
    random = np.random.default_rng(0)
    images, noises = random.normal(size=(2, len(ANGLES), 4, 4, 3)).astype("float32")
    return images, noises, SIGNAL_RATES * images + NOISE_RATES * noises


@pytest.mark.parametrize("name", OBJECTIVES)
def test_the_true_target_gives_noise_and_image_and_any_prediction_mixes_to_the_noisy_image(name):
    objective, (images, noises, noisy_images) = make_objective(name), mixture()
    targets = objective.target(images, noises, *RATES)
    found = objective.predictions(targets, noisy_images, *RATES)
    for prediction, truth in zip(found, (noises, images), strict=True):
        np.testing.assert_allclose(prediction, truth, atol=2e-4)
    pred_noises, pred_images = map(np.asarray, objective.predictions(noises, noisy_images, *RATES))
    again = SIGNAL_RATES * pred_images + NOISE_RATES * pred_noises
    np.testing.assert_allclose(again, noisy_images, atol=1e-4)


def test_the_velocity_is_the_derivative_of_the_noisy_image_by_the_angle():
    images, noises, _ = (part.astype("float64") for part in mixture())
    nearby = ANGLES + 1e-6, ANGLES - 1e-6
    ahead, behind = (np.cos(angles) * images + np.sin(angles) * noises for angles in nearby)
    velocity = VelocityObjective().target(images, noises, np.sin(ANGLES), np.cos(ANGLES))
    np.testing.assert_allclose(velocity, (ahead - behind) / 2e-6, atol=1e-6)


def test_the_papers_own_weights_mean_the_same_whatever_is_predicted():
    snr = (SIGNAL_RATES / NOISE_RATES) ** 2
    expected = {
        # Hang et al. 2023: min(SNR, 5) on the image; table 1's other targets, section 3.4
        ("image", "min_snr"): np.minimum(snr, 5),
        ("noise", "min_snr"): np.minimum(snr, 5) / snr,
        ("velocity", "min_snr"): np.minimum(snr, 5) / (snr + 1),
        # Choi et al. 2022: 1 / (k + SNR)^gamma on the noise, k = gamma = 1; the same of the others
        ("noise", "p2"): 1 / (1 + snr),
        ("image", "p2"): snr / (1 + snr),
        ("velocity", "p2"): snr / (1 + snr) ** 2,
    }
    for (name, weighting), weights in expected.items():
        found = make_objective(name, weighting).weights(*RATES)
        np.testing.assert_allclose(found, weights, rtol=1e-4)
    steep = NoiseObjective(P2Weighting(2.0, 0.5)).weights(*RATES)
    np.testing.assert_allclose(steep, 1 / np.sqrt(2 + snr), rtol=1e-4)


@pytest.mark.parametrize("weighting", ["none", *WEIGHTINGS])
@pytest.mark.parametrize("name", OBJECTIVES)
def test_nothing_becomes_infinite_where_a_rate_is_zero(name, weighting):
    objective, (images, noises, _) = make_objective(name, weighting), mixture()
    rates = np.float32([0, 1]).reshape(2, 1, 1, 1), np.float32([1, 0]).reshape(2, 1, 1, 1)
    noisy_images = rates[1] * images[:2] + rates[0] * noises[:2]
    found = objective.predictions(images[:2], noisy_images, *rates)
    assert all(np.isfinite(np.asarray(part)).all() for part in found)
    weights = objective.weights(*rates)
    assert weights is None or (np.isfinite(np.asarray(weights)) & (np.asarray(weights) >= 0)).all()


@pytest.mark.parametrize("loss", ["mean_absolute_error", "mean_squared_error"])
@pytest.mark.parametrize(("name", "weighting"), [("noise", "p2"), ("velocity", "min_snr")])
def test_the_loss_of_a_step_is_the_weighted_mean_of_its_errors(painted, name, weighting, loss):
    config = get_preset("tiny", objective=name, loss_weighting=weighting, loss=loss)
    model = build(config, 10)
    model.adapt(painted.images)
    images = model.normalize(painted.images[:8])
    random = np.random.default_rng(0)
    noises = random.normal(size=images.shape).astype("float32")
    times = random.uniform(size=(8, 1, 1, 1)).astype("float32")
    model.sample_noises_and_times = lambda shape: (noises, times)
    model.run_eagerly = True
    noise_rates, signal_rates = map(np.asarray, model.schedule(times))
    # The untrained network predicts zero, so the target itself is the error.
    errors = noises if name == "noise" else signal_rates * noises - noise_rates * np.asarray(images)
    errors = np.abs(errors) if loss == "mean_absolute_error" else errors**2
    snr = (signal_rates / noise_rates) ** 2
    weights = 1 / (1 + snr) if weighting == "p2" else np.minimum(snr, 5) / (snr + 1)
    found = model.test_on_batch(painted.images[:8])
    np.testing.assert_allclose(found, (weights * errors).mean(), rtol=1e-4)


@pytest.mark.slow
def test_a_run_resumes_to_the_bit_and_generates_the_same_after_a_reload(painted, tmp_path):
    chosen = {"objective": "velocity", "loss_weighting": "min_snr", "self_conditioning": True}
    config = get_preset("tiny", loss="mean_squared_error", learning_rate=3e-3, **chosen)
    options = {"resume": True, "sample_every": 0, "verbose": 0}
    straight = train(config, painted, tmp_path / "a", **options)
    for max_steps in (8, None):  # within the second epoch
        resumed = train(config, painted, tmp_path / "b", max_steps=max_steps, **options)
    assert resumed.losses[0] == straight.losses[0]
    again = load_model(resumed.folder)
    assert type(again.objective) is VelocityObjective and again.self_conditioned
    assert again.objective.get_config() == straight.model.objective.get_config()
    np.testing.assert_equal(again.get_weights(), straight.model.get_weights())
    images = again.generate(2, 4, seed=1)
    assert np.isfinite(images).all()
    np.testing.assert_array_equal(images, straight.model.generate(2, 4, seed=1))


@pytest.mark.slow
def test_a_run_is_not_resumed_with_another_objective(trained, painted, tmp_path):
    """The run's record is from before there were objectives."""
    record = json.loads((trained.folder / "run.json").read_text())
    for name in ("objective", "loss", "loss_weighting", "self_conditioning"):
        del record["config"][name]
    (tmp_path / "run.json").write_text(json.dumps(record))
    (tmp_path / "model.keras").write_bytes((trained.folder / "model.keras").read_bytes())
    with pytest.raises(ValueError, match="trained with objective=noise, not velocity"):
        train(get_preset("tiny", objective="velocity"), painted, tmp_path, resume=True)
    run = train(get_preset("tiny"), painted, tmp_path, resume=True)
    assert run.record["steps"] == 12


def test_the_default_objective_is_not_written_and_a_file_without_one_loads(trained):
    with zipfile.ZipFile(trained.folder / "model.keras") as archive:
        assert "objective" not in json.loads(archive.read("config.json"))["config"]
    assert isinstance(load_model(trained.folder).objective, NoiseObjective)


@keras.saving.register_keras_serializable(package="tests")
class TwiceTheNoise(Objective):
    """A reader's own objective."""

    def target(self, images, noises, noise_rates, signal_rates):
        return 2 * noises

    def predictions(self, outputs, noisy_images, noise_rates, signal_rates):
        return NoiseObjective().predictions(outputs / 2, noisy_images, noise_rates, signal_rates)

    def error_scale(self, snr):
        return 4 * ops.ones_like(snr)


@pytest.mark.slow
def test_a_readers_own_objective_is_passed_in_and_saved(painted, tmp_path):
    objective, network = TwiceTheNoise(MinSNRWeighting(2.0)), build_unet(16, (8, 8), 1, 8)
    model = DiffusionModel(network, OffsetCosineSchedule(), objective=objective)
    model.compile("adamw", loss="mean_squared_error")
    model.adapt(painted.images)
    model.train_on_batch(painted.images[:8])
    model.save(tmp_path / "own.keras")
    again = load_model(tmp_path / "own.keras")
    assert isinstance(again.objective, TwiceTheNoise)
    assert again.objective.weighting.ceiling == 2.0
    noise, rates = initial_noise(2, 16, seed=0), ops.full((2, 1, 1, 1), 0.5**0.5)
    expected = np.asarray(again.ema_network([noise, rates**2])) / 2
    np.testing.assert_allclose(again.denoise(noise, rates, rates)[0], expected, atol=1e-5)
