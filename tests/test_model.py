"""The model: statistics, averages, generating images, saving and loading."""

import re
import warnings

import keras
import numpy as np
import pytest
from processes import python

from diffusion.ddpm import Chain
from diffusion.latents import initial_noise
from diffusion.model import DiffusionModel
from diffusion.objectives import VelocityObjective
from diffusion.schedules import CosineSchedule, LinearSchedule, OffsetCosineSchedule
from diffusion.support.pixels import scale_pixels
from diffusion.training.loop import build, load_model
from diffusion.unet import build_unet


@pytest.fixture
def model(tiny, painted):
    model = build(tiny, total_steps=12)
    model.adapt(painted.images)
    return model


def test_denormalize_undoes_normalize_and_clips(model, painted):
    pictures = painted.images[:4]
    again = model.denormalize(model.normalize(pictures))
    np.testing.assert_allclose(again, pictures / 255.0, atol=1e-6)
    assert np.asarray(model.denormalize(np.full((1, 2, 2, 3), 99.0, "float32"))).max() == 1.0


def test_bytes_and_floats_are_the_same_image(painted):
    floats = (painted.images[:2] / 255.0).astype("float32")
    np.testing.assert_allclose(scale_pixels(painted.images[:2]), scale_pixels(floats), atol=1e-7)


def test_each_image_of_a_batch_gets_its_own_time(model):
    noises, times = model.sample_noises_and_times((64, 8, 8, 3))
    times = np.asarray(times)
    assert times.shape == (64, 1, 1, 1) and len(np.unique(times)) > 60
    assert 0 <= times.min() < 0.1 and 0.9 < times.max() < 1
    assert abs(np.asarray(noises).std() - 1) < 0.02


@pytest.mark.slow
def test_the_average_follows_its_formula_step_by_step(model, painted):
    model.ema_warmup = True
    expected = [weight.copy() for weight in model.ema_network.get_weights()]
    for step in range(1, 5):
        model.train_on_batch(painted.images[:8])
        kept = min(0.999, (1 + step) / (10 + step))
        weights = model.network.get_weights()
        expected = [kept * a + (1 - kept) * w for a, w in zip(expected, weights, strict=True)]
    for average, value in zip(model.ema_network.get_weights(), expected, strict=True):
        np.testing.assert_allclose(average, value, rtol=1e-4, atol=1e-6)


def test_evaluate_and_generate_use_the_average(model, painted):
    def break_weights(network):
        for weight in network.weights:
            weight.assign(np.full(weight.shape, np.nan))

    drawn = model.generate(2, 2, seed=0)
    break_weights(model.network)
    np.testing.assert_array_equal(model.generate(2, 2, seed=0), drawn)
    assert np.isfinite(model.evaluate(painted.images[:8], batch_size=8, verbose=0))
    break_weights(model.ema_network)
    assert not np.isfinite(model.evaluate(painted.images[:8], batch_size=8, verbose=0))


def test_the_compiled_average_uses_its_current_weights(trained, painted):
    model = load_model(trained.folder)
    rates = np.full((5, 1, 1, 1), 0.5**0.5, "float32")
    noisy_images = initial_noise(5, model.image_size, seed=3)
    for factor in (1.0, 1.1):  # then with other weights and fewer images
        weights = [factor * weight for weight in model.ema_network.get_weights()]
        model.ema_network.set_weights(weights)
        pred_noises, _ = model.denoise(noisy_images, rates, rates)
        inputs = {"noisy_images": np.asarray(noisy_images), "noise_variances": rates**2}
        plain = model.ema_network(inputs)
        np.testing.assert_allclose(pred_noises, plain, rtol=1e-4, atol=1e-4)
        noisy_images, rates = noisy_images[:2], rates[:2]


def test_the_seed_determines_the_generated_images(trained):
    one, two = (trained.model.generate(3, 4, seed=5) for _ in range(2))
    assert one.shape == (3, 16, 16, 3) and one.dtype == np.float32
    assert one.min() >= 0 and one.max() <= 1
    np.testing.assert_array_equal(one, two)
    assert np.abs(one - trained.model.generate(3, 4, seed=6)).max() > 0.01
    drawn = trained.model.generate(initial_noise=initial_noise(3, 16, seed=5), steps=4)
    np.testing.assert_allclose(one, drawn, atol=1e-6)


@pytest.mark.parametrize(
    ("schedule", "objective", "options", "words"),
    [
        (CosineSchedule(), None, {}, "divided.*threshold.*velocity.*OffsetCosine"),
        (Chain([0.1, 0.3]).as_schedule(), None, {}, r"0\.79 at time 1"),
        (CosineSchedule(), None, {"threshold": 0.995}, None),
        (CosineSchedule(), VelocityObjective(), {}, None),
        (LinearSchedule(), None, {}, None),
        (OffsetCosineSchedule(), None, {}, None),
    ],
)
def test_generate_warns_where_sampling_goes_wrong(schedule, objective, options, words):
    model = DiffusionModel(build_unet(16, (8, 8), 1, 8), schedule, objective=objective)
    kernel = 0.1 * np.random.default_rng(0).normal(size=(1, 1, 8, 3))
    model.network.get_layer("pred_noises").kernel.assign(kernel)
    model.ema_network.set_weights(model.network.get_weights())
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        images = model.generate(1, 1, seed=0, **options)
    found = [str(each.message) for each in caught if repr(schedule) in str(each.message)]
    assert len(found) == (words is not None)
    assert not words or re.search(words, found[0])
    saturates = bool(words) and "divided" in words
    assert ((images == 0) | (images == 1)).all() == saturates


RELOAD = """
import sys
import numpy as np
from diffusion.training.loop import load_model

model = load_model(sys.argv[1])
images = model.generate(2, 5, seed=3)
for _ in range(3):
    model.train_on_batch(np.load(sys.argv[2] + "/batch.npy"))
states = model.seed_generator.state, model.optimizer.iterations
np.savez(sys.argv[2] + "/out.npz", *model.get_weights(), *states, images)
"""


@pytest.mark.slow
def test_a_new_process_reloads_the_model_to_the_bit_and_continues_training_exactly(
    trained, painted, tmp_path
):
    np.save(tmp_path / "batch.npy", painted.images[:8])
    python("-c", RELOAD, trained.folder, tmp_path)
    *theirs, images = np.load(tmp_path / "out.npz").values()
    np.testing.assert_array_equal(images, trained.model.generate(2, 5, seed=3))
    model = load_model(trained.folder)
    for _ in range(3):
        model.train_on_batch(painted.images[:8])
    ours = *model.get_weights(), model.seed_generator.state, model.optimizer.iterations
    np.testing.assert_equal(theirs, [np.asarray(value) for value in ours])
    assert theirs[-1] == 12 + 3  # two epochs of six steps went before


def test_one_file_holds_schedule_average_and_optimizer(trained):
    model, again = trained.model, load_model(trained.folder)
    assert again.schedule.get_config() == model.schedule.get_config()
    assert (again.ema, again.ema_warmup, again.loss) == (model.ema, model.ema_warmup, model.loss)
    ours, theirs = (
        [np.asarray(variable) for variable in (*each.weights, *each.optimizer.variables)]
        for each in (model, again)
    )
    assert len(ours) > 40
    np.testing.assert_equal(theirs, ours)


def test_a_readers_own_sampler_needs_no_seed(trained):
    def mine(denoise, schedule, noise, steps):
        return noise

    noise = initial_noise(1, 16, seed=1)
    drawn = trained.model.generate(1, 2, seed=1, sampler=mine)
    np.testing.assert_allclose(drawn, trained.model.denormalize(noise), atol=1e-6)


def test_images_of_one_colour_normalise_without_nan(model):
    for value in range(0, 256, 17):
        model.adapt(np.full((20, 16, 16, 3), value, "uint8"))
        assert np.isfinite(model.normalize(np.full((1, 16, 16, 3), value, "uint8"))).all()


def unfamiliar_network(*names, dtype="int32"):
    """A functional model with inputs of these names."""
    shapes = {"noise_variances": (1, 1, 1), "labels": ()}
    inputs = [
        keras.Input(shapes.get(n, (8, 8, 3)), name=n, dtype=dtype if n == "labels" else None)
        for n in names
    ]
    return keras.Model(inputs, keras.layers.Conv2D(3, 1)(inputs[0]))


@pytest.mark.parametrize(
    ("network", "names", "words"),
    [
        (("noisy_images", None), (), r"has the inputs noisy_images, \w+: name them with"),
        (("noisy_images",), (), "has the inputs noisy_images: name them .*noise_variances"),
        (("noisy_images", "noise_variances", "name"), (), "noise_variances, name: name them"),
        (("noisy_images", "noise_variances", "labels"), (), "give the model their class_names"),
        (("noisy_images", "noise_variances"), ("a", "b"), "no input labels for 2 class_names"),
    ],
)
def test_a_network_with_other_inputs_is_refused_in_one_line(network, names, words):
    with pytest.raises(ValueError, match=words) as error:
        DiffusionModel(unfamiliar_network(*network), OffsetCosineSchedule(), class_names=names)
    assert "\n" not in str(error.value)


def test_labels_that_are_not_whole_numbers_are_refused():
    network = unfamiliar_network("noisy_images", "noise_variances", "labels", dtype="float32")
    with pytest.raises(ValueError, match=r"labels float32 .*dtype=\"int32\""):
        DiffusionModel(network, OffsetCosineSchedule(), class_names=("a", "b"))


@pytest.mark.parametrize("arrange", [list, reversed, dict])
def test_a_network_may_have_its_inputs_in_any_order(arrange, tmp_path):
    network = build_unet(16, (8, 8), 1, 8, self_conditioning=True, num_classes=2)
    kernel = network.get_layer("pred_noises").kernel
    kernel.assign(0.3 * np.random.default_rng(0).normal(size=kernel.shape))
    inputs = [(tensor.name, tensor) for tensor in network.inputs]
    inputs = dict(inputs[::-1]) if arrange is dict else [each for _, each in arrange(inputs)]
    other = keras.Model(inputs, network.outputs[0])
    DiffusionModel(other, OffsetCosineSchedule(), class_names="ab").save(tmp_path / "other.keras")
    models = (
        DiffusionModel(network, OffsetCosineSchedule(), class_names="ab"),
        load_model(tmp_path / "other.keras"),
    )
    one, two = (m.generate(3, 3, seed=0, labels=["b", "a", None], guidance=2) for m in models)
    np.testing.assert_allclose(one, two, atol=1e-6)


def test_a_missing_file_and_another_model_are_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"missing\.keras.*train"):
        load_model(tmp_path / "missing.keras")
    keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)]).save(tmp_path / "other.keras")
    with pytest.raises(ValueError, match="Sequential"):
        load_model(tmp_path / "other.keras")


@pytest.mark.parametrize("count", [2, 4])
def test_names_must_fit_the_networks_table_of_labels(count):
    network = build_unet(16, (8, 16), 1, 8, num_classes=3)
    with pytest.raises(ValueError, match=f"labels for 3 names, not for {count}"):
        DiffusionModel(network, CosineSchedule(), class_names=["a", "b", "c", "d"][:count])
