"""Dynamic thresholding: its definition, and the range that a model passes."""

import numpy as np

from diffusion.thresholding import thresholded


def test_thresholding_agrees_with_its_definition_pixel_by_pixel():
    rng = np.random.default_rng(0)
    images = rng.normal(size=(3, 4, 4, 3)).astype("float32") * [[[[0.2]]], [[[1]]], [[[4]]]]
    low, high = np.array([-1.0, -1.5, -0.5]), np.array([1.0, 0.5, 2.5])

    def denoise(noisy_images, noise_rates, signal_rates):
        return rng.normal(size=images.shape), images.astype("float32")

    noisy = rng.normal(size=images.shape).astype("float32")
    noises, kept = map(np.asarray, thresholded(denoise, low, high, 0.9)(noisy, 0.6, 0.8))
    for image, got in zip(images, kept, strict=True):
        pixels = 2 * (image - low) / (high - low) - 1
        width = max(1, np.quantile(np.abs(pixels), 0.9))
        expected = np.clip(pixels, -width, width) / width
        np.testing.assert_allclose(got, low + (expected + 1) / 2 * (high - low), atol=1e-5)
    assert (kept >= low - 1e-5).all() and (kept <= high + 1e-5).all()
    np.testing.assert_allclose(kept[0], images[0], atol=1e-6)  # within the range already
    np.testing.assert_allclose(0.8 * kept + 0.6 * noises, noisy, atol=1e-5)


def test_without_noise_the_predicted_noise_stays_finite():
    images = np.full((1, 2, 2, 3), 3.0, "float32")
    rates = np.zeros((1, 1, 1, 1), "float32"), np.ones((1, 1, 1, 1), "float32")
    predictions = thresholded(lambda *_: (None, images), -1.0, 1.0)(images, *rates)
    assert all(np.isfinite(np.asarray(part)).all() for part in predictions)


def test_a_model_thresholds_by_the_range_of_its_own_images(trained):
    seen = []
    trained.model.generate(
        4, 5, seed=0, threshold=1.0, on_step=lambda *step: seen.append(np.asarray(step[3]))
    )
    normalizer = trained.model.normalizer
    pixels = np.stack(seen) * np.sqrt(np.asarray(normalizer.variance)) + np.asarray(normalizer.mean)
    assert pixels.min() > -1e-5 and pixels.max() < 1 + 1e-5
    free = trained.model.generate(4, 5, seed=0)
    assert np.abs(free - trained.model.generate(4, 5, seed=0, threshold=0.5)).max() > 0.01
