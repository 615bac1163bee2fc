"""Exported models: small, loadable anywhere, and as good as the run's own."""

import numpy as np
import pytest
from conftest import ROOT

from diffusion.latents import initial_noise
from diffusion.samplers import SAMPLERS
from diffusion.training import export
from diffusion.training.building import build, load_model
from diffusion.training.config import get_preset
from diffusion.training.export import (
    SHIPPED,
    export_run,
    inference_copy,
    load_for_inference,
    load_run,
)
from diffusion.training.loop import train


@pytest.fixture(scope="module")
def exported(trained, tmp_path_factory):
    path = tmp_path_factory.mktemp("exported") / "tiny.keras"
    export_run(trained, path)
    return path


def test_an_exported_model_generates_what_the_run_did(trained, exported):
    noise = initial_noise(4, trained.model.image_size, seed=5)
    generated = load_for_inference(exported).generate(initial_noise=noise, steps=5)
    expected = trained.model.generate(initial_noise=noise, steps=5)
    np.testing.assert_allclose(generated, expected, atol=2 / 255)


def test_it_is_small_with_the_average_as_both_networks_and_no_optimizer(trained, exported):
    # The run has four copies of the weights (network, average, two of the optimizer) in float32.
    assert exported.stat().st_size < (trained.folder / "model.keras").stat().st_size / 3
    model = load_model(exported)
    assert not model.compiled
    averages = trained.model.ema_network.get_weights()
    for network in (model.network, model.ema_network):
        for weight, average in zip(network.get_weights(), averages, strict=True):
            np.testing.assert_allclose(weight, average, rtol=1e-3, atol=1e-6)


def test_the_record_comes_with_it_and_is_needed(trained, exported, tmp_path):
    assert load_run(exported).caption == trained.caption
    alone = tmp_path / "alone.keras"
    alone.write_bytes(exported.read_bytes())
    with pytest.raises(FileNotFoundError, match=r"alone\.json"):
        load_run(alone)
    alone.with_suffix(".json").write_text("{")
    with pytest.raises(ValueError, match=r"alone\.json"):
        load_run(alone)
    with pytest.raises(FileNotFoundError, match=r"none\.keras"):
        load_run(tmp_path / "none.keras")


def test_an_exported_model_keeps_its_names_and_generates_by_name(named, tmp_path):
    export_run(named, tmp_path / "named.keras")
    model = load_for_inference(tmp_path / "named.keras")
    assert model.class_names == named.model.class_names
    options = {"steps": 3, "initial_noise": initial_noise(2, 16, seed=5), "guidance": 3.0}
    for name in model.class_names[:2]:
        expected = named.model.generate(labels=name, **options)
        np.testing.assert_allclose(model.generate(labels=name, **options), expected, atol=2 / 255)


def test_another_suffix_is_refused_and_nothing_written(trained, tmp_path):
    with pytest.raises(ValueError, match=r"\.keras file.*model\.h5"):
        export_run(trained, tmp_path / "model.h5")
    assert not list(tmp_path.iterdir())


def test_training_does_not_continue_from_a_model_without_optimizer(
    trained, tiny, painted, exported, tmp_path
):
    (tmp_path / "model.keras").write_bytes(exported.read_bytes())
    (tmp_path / "run.json").write_bytes((trained.folder / "run.json").read_bytes())
    with pytest.raises(ValueError, match="no optimizer"):
        train(tiny, painted, tmp_path, resume=True, verbose=0)


@pytest.mark.parametrize("network", ["unet", "modern_unet", "transformer"])
def test_a_bfloat16_model_computes_in_float32_where_bfloat16_is_slow(
    network, tmp_path, monkeypatch
):
    config = get_preset("tiny", precision="mixed_bfloat16", labels=True, network=network)
    model = build(config, 1, class_names=("rose", "lily"))
    kernel = [weight for weight in model.network.weights if weight.name == "kernel"][-1]
    kernel.assign(np.random.default_rng(0).normal(size=kernel.shape) / 10)  # it starts at zero
    model = inference_copy(model)
    model.ema_network.set_weights(model.network.get_weights())
    model.save(tmp_path / "model.keras")
    monkeypatch.setattr(export, "choose_precision", lambda precision: "float32")
    plain = load_for_inference(tmp_path)
    layers = [layer for layer in plain.ema_network.layers if layer.name != "labels"]
    assert {layer.dtype_policy.name for layer in layers} == {"float32"}
    noise = initial_noise(2, model.image_size, seed=0)
    rates = np.full((2, 1, 1, 1), 0.5**0.5, "float32")
    expected = model.denoise(noise, rates, rates, labels=[0, 1])[0]
    given = plain.denoise(noise, rates, rates, labels=[0, 1])[0]
    np.testing.assert_allclose(given, expected, atol=0.05)


@pytest.mark.slow
def test_the_course_ships_a_model_that_generates_images():
    run = load_run()
    model = run.model
    assert SHIPPED.parent == ROOT / "models" and SHIPPED.stat().st_size < 10_000_000
    assert model.image_size == 64 and model.network.count_params() == 1_953_507
    assert run.record["steps"] > 1000 and "flowers102" in run.caption
    images = model.generate(2, 2, seed=0)
    # Images are neither noise nor flat: neighbouring pixels are alike, distant ones are not.
    differences = np.abs(np.diff(images, axis=1)).mean()
    assert 0.005 < differences < 0.05 < images.std()


@pytest.mark.slow
def test_ten_steps_of_dpm_solver_are_nearer_to_the_limit_than_fifty_of_ddim():
    model = load_for_inference(SHIPPED)
    noise = initial_noise(2, model.image_size, seed=1)

    def generate(name, steps):
        return model.generate(initial_noise=noise, steps=steps, sampler=SAMPLERS[name])

    limit = generate("heun", 81)  # of the probability flow, which ddim approaches too
    settings = ("dpm_solver", 10), ("ddim", 50)
    few, many = (np.square(generate(*each) - limit).mean() for each in settings)
    assert few < many
