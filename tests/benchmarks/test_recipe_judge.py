"""All models are judged by the same images, names and noise, and their errors are the true ones."""

import numpy as np
import pytest

from benchmarks.recipe_judge import Judge
from diffusion.schedules import CosineSchedule


class Oracle:
    """A stand-in for a model of images that are all black: it knows the noise, and errs by a bit.

    Black images are 0 when normalised, so the noise is the noisy image divided by the noise rate.
    """

    schedule, image_size, class_names = CosineSchedule(), 16, ("rose", "daisy")

    def __init__(self, error=0.0, labelled=False):
        self.error, self.labelled, self.labels, self.calls = error, labelled, [], []

    def normalize(self, images):
        return np.asarray(images, "float32")

    def denoise(self, noisy_images, noise_rates, signal_rates, labels=None):
        self.labels.append(labels)
        return noisy_images / noise_rates + self.error, np.zeros_like(noisy_images)

    def generate(self, initial_noise, steps, sampler, **options):
        self.calls.append((initial_noise, steps, sampler.__name__, options))
        return np.zeros(initial_noise.shape, "float32")


def judge(guidance=(1.0, 2.0), count=200, num_images=160):
    """A judge of black images, by features that are their positions in the batch."""

    def encoder(images):
        return np.linspace(0, 1, 2 * len(images), dtype="float32").reshape(-1, 2)

    labels = np.arange(count) % 2
    return Judge(np.zeros((count, 16, 16, 3), "uint8"), labels, encoder, guidance, num_images)


def test_a_model_that_predicts_exactly_has_no_error():
    errors = judge().errors(Oracle())
    assert 0 <= errors["noise_error"] < 1e-6 and 0 <= errors["velocity_error"] < 1e-10


def test_the_errors_of_a_constant_mistake_follow_from_the_rates():
    """A noise error d is signal d in the velocity; signal^2 is 1/2 on average over the cosine."""
    errors = judge().errors(Oracle(error=0.5))
    assert errors["noise_error"] == pytest.approx(0.5, rel=1e-5)
    assert errors["velocity_error"] == pytest.approx(0.5**2 / 2, rel=1e-3)


def test_all_models_are_judged_by_the_same_images_names_and_noise():
    ours, first, second = judge(), Oracle(labelled=True), Oracle(labelled=True)
    for model in (first, second):
        assert set(ours.scores(model)["guidance"]) == {"1", "2"}
    np.testing.assert_array_equal(np.concatenate(first.labels), ours.labels)
    for one, two in zip(first.calls, second.calls, strict=True):
        np.testing.assert_array_equal(one[0], two[0])
        np.testing.assert_array_equal(one[3]["labels"], two[3]["labels"])
    assert {call[1:3] for call in first.calls} == {(10, "dpm_solver")}
    assert [call[3]["guidance"] for call in first.calls] == [1, 1, 2, 2]
    drawn = np.concatenate([call[3]["labels"] for call in first.calls[:2]])
    assert len(drawn) == 160 and 0.4 < drawn.mean() < 0.6  # as in the held-out images
    assert len(np.unique(np.diff(drawn))) > 1  # and mixed
    nameless = Oracle()
    assert set(ours.scores(nameless)["guidance"]) == {"1"}
    assert nameless.calls[0][3]["labels"] is None
