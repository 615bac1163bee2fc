"""Guidance: on a mixture of Gaussians with a label each, where everything has a closed form."""

import keras
import numpy as np
import pytest
from denoisers import Mixture
from keras import ops
from scipy.special import logsumexp

from diffusion.guidance import classifier_guided, guided
from diffusion.latents import initial_noise
from diffusion.model import DiffusionModel
from diffusion.samplers import SAMPLERS
from diffusion.schedules import CosineSchedule, OffsetCosineSchedule
from diffusion.unet import build_unet

NAMES = ("rose", "sunflower", "water lily")
CENTRES = np.array([[-1.0, 0.5, 0.2], [0.6, 0.9, -0.8], [0.3, -1.2, 0.9]]).reshape(3, 1, 1, 3)
MIXTURE = Mixture(CENTRES, 0.3, [0.5, 0.3, 0.2])
ALONE = [Mixture(CENTRES[[label]], 0.3) for label in range(3)]
NO_NAME = 3
SCALES = (0.0, 0.5, 1.0, 3.0, -1.0)


class Exact:
    """The ideal denoiser with labels and the ideal classifier; it keeps the labels it was given."""

    def __init__(self, mixture=MIXTURE, alone=ALONE):
        self.kinds, self.seen = [*alone, mixture], []

    def __call__(self, noisy_images, noise_rates, signal_rates, labels=None):
        inputs = [np.asarray(part) for part in (noisy_images, noise_rates, signal_rates)]
        no_names = np.full(len(inputs[0]), len(self.kinds) - 1)
        labels = no_names if labels is None else np.asarray(labels)
        self.seen.append((float(inputs[1][0, 0, 0, 0]), labels))
        predictions = np.empty((2, *inputs[0].shape), "float32")
        for label in np.unique(labels):
            rows = labels == label
            predictions[:, rows] = self.kinds[label].denoise(*(part[rows] for part in inputs))
        return tuple(map(ops.convert_to_tensor, predictions))

    def gradient(self, noisy_images, noise_rates, labels):
        """The gradient of log p(c|x): signal (centre_c - mean centre given x) / variance."""
        mixture, noise_rates = self.kinds[-1], np.asarray(noise_rates, "float64")
        signal_rates = np.sqrt(1 - noise_rates**2)
        points = np.asarray(noisy_images, "float64")
        logs = mixture.log_joint(points, signal_rates[..., 0], noise_rates[..., 0])
        shares = np.exp(logs - logsumexp(logs, axis=1, keepdims=True))
        away = mixture.centres[np.asarray(labels)] - np.tensordot(shares, mixture.centres, axes=1)
        variances = (signal_rates * mixture.deviation) ** 2 + noise_rates**2
        return (signal_rates * away / variances).astype("float32")


def at(noise_rate, count):
    """Rates (count, 1, 1, 1)."""
    ones = np.ones((count, 1, 1, 1), "float32")
    return noise_rate * ones, (1 - noise_rate**2) ** 0.5 * ones


def points_and_labels(count=6):
    points = np.random.default_rng(0).normal(size=(count, 1, 1, 3)).astype("float32")
    return points, np.arange(count, dtype="int32") % 3


def log_tilted(points, labels, scale, noise_rate):
    """log p(x) p(c|x)^scale of noisy points, up to a constant."""
    logs = MIXTURE.log_joint(points, (1 - noise_rate**2) ** 0.5, noise_rate)
    log_all = logsumexp(logs, axis=1)
    return log_all + scale * (logs[np.arange(len(logs)), labels] - log_all)


@pytest.mark.parametrize("scale", SCALES)
def test_the_guided_score_is_that_of_the_tilted_density(scale):
    """Its derivative by finite differences: score = -noise / noise_rate."""
    points, labels = points_and_labels()
    rates = at(0.6, len(points))
    pred_noises, pred_images = guided(Exact(), labels, NO_NAME, scale)(points, *rates)
    expected, step, points = np.empty(points.shape), 1e-5, np.float64(points)
    for axis in range(3):
        shift = step * np.eye(3)[axis]
        above, below = (log_tilted(points + s, labels, scale, 0.6) for s in (shift, -shift))
        expected[..., axis] = ((above - below) / (2 * step))[:, None, None]
    np.testing.assert_allclose(-np.asarray(pred_noises) / 0.6, expected, rtol=1e-4, atol=1e-4)
    back = rates[0] * np.asarray(pred_noises) + rates[1] * np.asarray(pred_images)
    np.testing.assert_allclose(back, points, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("scale", [0.0, 1.0, 3.0])
def test_langevin_steps_at_one_noise_level_draw_from_the_tilted_density(scale):
    """Two Gaussians on a line: mean and variance of the tilted density by quadrature."""
    centres = np.array([-0.8, 0.8]).reshape(2, 1, 1, 1)
    mixture = Mixture(centres, 0.5, [0.7, 0.3])
    exact = Exact(mixture, [Mixture(centres[[label]], 0.5) for label in range(2)])
    noise_rate, count, width = 0.6, 8000, 0.01
    grid = np.linspace(-6, 6, 4001)
    logs = mixture.log_joint(grid.reshape(-1, 1, 1, 1), 0.8, noise_rate)
    log_all = logsumexp(logs, axis=1)
    density = np.exp(log_all + scale * (logs[:, 1] - log_all))
    mean = (grid * density).sum() / density.sum()
    variance = ((grid - mean) ** 2 * density).sum() / density.sum()

    random = np.random.default_rng(0)
    points = random.normal(size=(count, 1, 1, 1))
    denoise, rates = guided(exact, np.ones(count), 2, scale), at(noise_rate, count)
    for _ in range(400):
        score = -np.asarray(denoise(points.astype("float32"), *rates)[0]) / noise_rate
        points += width * score + np.sqrt(2 * width) * random.normal(size=points.shape)
    np.testing.assert_allclose(points.mean(), mean, atol=0.04)
    np.testing.assert_allclose(points.var(), variance, rtol=0.06)


@pytest.mark.parametrize("name", ["ddim", "ddpm", "dpm_solver", "dpm_solver_sde"])
def test_plain_conditional_sampling_hits_the_mean_and_variance_of_each_class(name):
    count, steps = 3000, 60 if "ddpm" not in name else 200
    labels = np.arange(count) % 3
    noise = np.random.default_rng(1).normal(size=(count, 1, 1, 3)).astype("float32")
    options = {"seed": 2} if name in ("ddpm", "dpm_solver_sde") else {}
    denoise = guided(Exact(), labels, NO_NAME, 1.0)
    images = np.asarray(SAMPLERS[name](denoise, CosineSchedule(), noise, steps, **options))
    for label in range(3):
        mine, each = images[labels == label].reshape(-1, 3), count // 3
        centre = CENTRES[label].ravel()
        assert np.abs(mine.mean(axis=0) - centre).max() < 4.5 * 0.3 / np.sqrt(each) + 0.01
        np.testing.assert_allclose(mine.std(axis=0), 0.3, rtol=0.1)


@pytest.mark.parametrize("scale", SCALES)
def test_classifier_guidance_and_classifier_free_guidance_agree_where_both_are_exact(scale):
    points, labels = points_and_labels()
    one = guided(Exact(), labels, NO_NAME, scale)
    other = classifier_guided(Exact(), Exact().gradient, labels, scale)
    for noise_rate in (0.05, 0.6, 0.99):
        rates = at(noise_rate, len(points))
        for mine, theirs in zip(one(points, *rates), other(points, *rates), strict=True):
            np.testing.assert_allclose(mine, theirs, rtol=1e-3, atol=1e-4)
    images = [
        np.asarray(SAMPLERS["dpm_solver"](denoise, OffsetCosineSchedule(), points, 8))
        for denoise in (one, other)
    ]
    np.testing.assert_allclose(*images, rtol=1e-3, atol=1e-3)


def test_outside_the_interval_the_plain_conditional_model_is_called_once_on_the_batch_itself():
    points, labels = points_and_labels()
    exact, plain = Exact(), Exact()
    denoise = guided(exact, labels, NO_NAME, 3.0, (0.3, 0.8))
    for noise_rate, inside in ((0.29, False), (0.3, True), (0.8, True), (0.81, False)):
        rates = at(np.float32(noise_rate), len(points))
        found = denoise(points, *rates)
        called_with = exact.seen.pop()[1]
        assert not exact.seen and len(called_with) == (2 if inside else 1) * len(points)
        with_labels = plain(points, *rates, labels=labels)
        without = plain(points, *rates, labels=np.full(len(points), NO_NAME))
        for got, named, nameless in zip(found, with_labels, without, strict=True):
            if inside:
                np.testing.assert_allclose(got, nameless + 3 * (named - nameless), atol=1e-4)
            else:
                np.testing.assert_array_equal(got, named)


def test_in_a_batch_of_several_noise_levels_each_image_has_its_own_scale():
    points, labels = points_and_labels()
    noise_rates = np.linspace(0.1, 0.9, len(points)).astype("float32").reshape(-1, 1, 1, 1)
    rates = noise_rates, np.sqrt(1 - noise_rates**2)
    found = guided(Exact(), labels, NO_NAME, 3.0, (0.4, 0.6))(points, *rates)
    everywhere = guided(Exact(), labels, NO_NAME, 3.0)(points, *rates)
    with_labels = Exact()(points, *rates, labels=labels)
    inside = np.ravel((noise_rates >= 0.4) & (noise_rates <= 0.6))
    assert 0 < inside.sum() < len(points)
    for got, more, named in zip(found, everywhere, with_labels, strict=True):
        np.testing.assert_array_equal(np.asarray(got)[inside], np.asarray(more)[inside])
        np.testing.assert_array_equal(np.asarray(got)[~inside], np.asarray(named)[~inside])


def test_outside_the_interval_the_classifier_is_not_asked():
    points, labels = points_and_labels()
    asked = []

    def gradient(noisy_images, noise_rates, labels):
        asked.append(float(noise_rates[0, 0, 0, 0]))
        return Exact().gradient(noisy_images, noise_rates, labels)

    denoise = classifier_guided(Exact(), gradient, labels, 3.0, (0.3, 0.8))
    for noise_rate in (0.2, 0.5, 0.9):
        rates = at(np.float32(noise_rate), len(points))
        both = denoise(points, *rates), Exact()(points, *rates)
        same = np.array_equal(np.asarray(both[0][0]), np.asarray(both[1][0]))
        assert same == (noise_rate != 0.5)
    assert np.allclose(asked, [0.5])


def make_model(painted, self_conditioning=True):
    """A small model with names, whose last layer is not zero."""
    keras.utils.set_random_seed(0)
    network = build_unet(
        16, (8, 8), 1, 8, self_conditioning=self_conditioning, num_classes=len(NAMES)
    )
    kernel = network.get_layer("pred_noises").kernel
    kernel.assign(0.3 * np.random.default_rng(0).normal(size=kernel.shape))
    model = DiffusionModel(network, OffsetCosineSchedule(), class_names=NAMES)
    model.adapt(painted.images)
    return model


@pytest.fixture(scope="module")
def model(painted):
    return make_model(painted)


@pytest.mark.parametrize("name", SAMPLERS)
def test_every_sampler_has_guidance_beside_self_conditioning_and_thresholding(
    model, name, monkeypatch
):
    seen, denoise = [], model.denoise

    def recording(*inputs, **options):
        seen.append((options["earlier_images"], options["labels"]))
        return denoise(*inputs, **options)

    monkeypatch.setattr(model, "denoise", recording)
    options = {"steps": 5, "sampler": SAMPLERS[name], "seed": 3, "threshold": 0.9}
    images = model.generate(labels=["rose", "sunflower"], guidance=3.0, **options)
    assert images.shape == (2, 16, 16, 3) and np.isfinite(images).all()
    assert seen[0][0] is None
    for earlier_images, labels in seen:
        assert np.asarray(labels).tolist() == [0, 1, NO_NAME, NO_NAME]
        if earlier_images is not None:  # both halves know what was predicted last
            np.testing.assert_array_equal(*np.split(np.asarray(earlier_images), 2))
    assert any(earlier_images is not None for earlier_images, _ in seen)
    plain = model.generate(labels=["rose", "sunflower"], guidance=1.0, **options)
    assert np.abs(images - plain).max() > 1e-3


def test_scale_1_is_the_plain_conditional_model_and_0_the_one_without_names_to_the_bit(model):
    noise = initial_noise(2, 16, seed=0)
    last_images = None

    def conditional(*inputs):
        nonlocal last_images
        numbers = np.array([2, 0], "int32")
        predictions = model.denoise(*inputs, earlier_images=last_images, labels=numbers)
        last_images = predictions[1]
        return predictions

    options = {"initial_noise": noise, "steps": 4}
    by_hand = SAMPLERS["ddim"](conditional, model.schedule, noise, 4)
    named = model.generate(labels=["water lily", "Rose"], guidance=1, **options)
    np.testing.assert_array_equal(named, model.denormalize(by_hand))
    nameless = model.generate(labels=["water lily", "Rose"], guidance=0, **options)
    np.testing.assert_array_equal(nameless, model.generate(**options))
    assert np.abs(named - nameless).max() > 1e-3


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"guidance": float("nan")}, "guidance must be a finite number, got nan"),
        ({"guidance": float("inf")}, "got inf"),
        ({"guidance_interval": (0.8, 0.2)}, r"guidance_interval.*lower one first.*\(0.8, 0.2\)"),
        ({"guidance_interval": (0.2, 1.2)}, r"in \[0, 1\]"),
        ({"guidance_interval": (float("nan"), 1)}, "guidance_interval"),
        ({"guidance_interval": (0.2,)}, "two noise rates"),
        ({"labels": "sunflour"}, "no flower named 'sunflour': did you mean sunflower"),
        ({"labels": "lily"}, "did you mean water lily"),
        ({"labels": 3}, "no label 3: .* from 0 to 2"),
        ({"labels": ["rose", "sunflower", "rose"]}, "3 labels for 2 images"),
        ({"labels": None, "guidance": 2.0}, "guidance needs labels"),
        ({"labels": None, "guidance_interval": (0.2, 0.8)}, "guidance needs labels"),
        ({"labels": None, "classifier": "any"}, "guidance needs labels"),
    ],
)
def test_what_guidance_cannot_do_is_refused(model, options, words):
    options = {"labels": "rose", "num_images": 2, "steps": 1, **options}
    with pytest.raises(ValueError, match=words):
        model.generate(**options)


@pytest.mark.parametrize("labels", ["rose", 0, [None]])
def test_a_model_without_names_says_so(trained, labels):
    with pytest.raises(ValueError, match="no names: it was trained without labels"):
        trained.model.generate(1, 1, labels=labels)
