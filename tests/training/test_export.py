"""The shipped model: small, loads anywhere, and draws what the trained one drew."""

import numpy as np
import pytest
from conftest import ROOT

from diffusion.latents import initial_noise
from diffusion.samplers import SAMPLERS
from diffusion.training import export
from diffusion.training.config import get_preset
from diffusion.training.export import SHIPPED, inference_copy, load_for_inference, load_run, ship
from diffusion.training.loop import build, load_model, train


@pytest.fixture(scope="module")
def shipped(trained, tmp_path_factory):
    path = tmp_path_factory.mktemp("shipped") / "tiny.keras"
    ship(trained, path)
    return path


def test_a_shipped_model_draws_what_the_run_drew(trained, shipped):
    noise = initial_noise(4, trained.model.image_size, seed=5)
    drawn = load_for_inference(shipped).generate(initial_noise=noise, steps=5)
    expected = trained.model.generate(initial_noise=noise, steps=5)
    np.testing.assert_allclose(drawn, expected, atol=2 / 255)


def test_a_shipped_model_is_a_small_part_of_the_runs(trained, shipped):
    # Of four copies of the weights (network, average, two of the optimizer) one, in half the bytes.
    assert shipped.stat().st_size < (trained.folder / "model.keras").stat().st_size / 3


def test_it_holds_the_average_as_both_networks_and_no_optimizer(trained, shipped):
    model = load_model(shipped)
    assert not model.compiled
    averages = trained.model.ema_network.get_weights()
    for network in (model.network, model.ema_network):
        for weight, average in zip(network.get_weights(), averages, strict=True):
            np.testing.assert_allclose(weight, average, rtol=1e-3, atol=1e-6)


def test_the_record_comes_with_it_and_is_needed(trained, shipped, tmp_path):
    assert load_run(shipped).caption == trained.caption
    alone = tmp_path / "alone.keras"
    alone.write_bytes(shipped.read_bytes())
    with pytest.raises(FileNotFoundError, match=r"no record at .*alone\.json"):
        load_run(alone)
    alone.with_suffix(".json").write_text("{")
    with pytest.raises(ValueError, match=r"alone\.json is not a record"):
        load_run(alone)


def test_what_is_no_keras_file_is_refused_and_nothing_written(trained, tmp_path):
    with pytest.raises(ValueError, match=r"a shipped model is a \.keras file, got .*model\.h5"):
        ship(trained, tmp_path / "model.h5")
    assert not list(tmp_path.iterdir())


def test_training_does_not_go_on_from_a_model_without_optimizer(
    trained, tiny, painted, shipped, tmp_path
):
    (tmp_path / "model.keras").write_bytes(shipped.read_bytes())
    (tmp_path / "run.json").write_bytes((trained.folder / "run.json").read_bytes())
    with pytest.raises(ValueError, match=r"holds no optimizer.*: it can draw, not train on"):
        train(tiny, painted, tmp_path, resume=True, verbose=0)


def test_a_bfloat16_model_computes_in_float32_where_bfloat16_is_slow(tmp_path, monkeypatch):
    model = build(get_preset("tiny", precision="mixed_bfloat16"), total_steps=1)
    kernel = model.network.layers[-1].kernel
    kernel.assign(np.random.default_rng(0).normal(size=kernel.shape) / 10)  # it starts at zero
    model = inference_copy(model)
    model.ema_network.set_weights(model.network.get_weights())
    model.save(tmp_path / "model.keras")
    monkeypatch.setattr(export, "choose_precision", lambda precision: "float32")
    plain = load_for_inference(tmp_path)
    policies = {layer.dtype_policy.name for layer in plain.ema_network.layers}
    assert policies == {"float32"}
    noise = initial_noise(2, model.image_size, seed=0)
    rates = np.full((2, 1, 1, 1), 0.5**0.5, "float32")
    expected = model.denoise(noise, rates, rates)[0]
    np.testing.assert_allclose(plain.denoise(noise, rates, rates)[0], expected, atol=0.05)


def test_the_course_ships_a_model_that_draws():
    run = load_run()
    model = run.model
    assert SHIPPED.parent == ROOT / "models" and SHIPPED.stat().st_size < 10_000_000
    assert model.image_size == 64 and model.network.count_params() == 1_953_507
    assert run.record["steps"] > 1000 and "flowers102" in run.caption
    pictures = model.generate(2, 2, seed=0)
    # Pictures, neither noise nor a plain surface: neighbours are alike, far places are not.
    steps = np.abs(np.diff(pictures, axis=1)).mean()
    assert 0.005 < steps < 0.05 < pictures.std()


def test_ten_steps_of_dpm_solver_are_nearer_to_the_limit_than_fifty_of_ddim():
    model = load_for_inference(SHIPPED)
    noise = initial_noise(2, model.image_size, seed=1)

    def draw(name, steps):
        sampler = SAMPLERS[name]
        return model.generate(initial_noise=noise, steps=steps, sampler=sampler)

    limit = draw("heun", 161)  # of the flow that ddim, too, follows ever more closely
    distances = [np.square(draw(*it) - limit).mean() for it in (("dpm_solver", 10), ("ddim", 50))]
    assert distances[0] < distances[1]
