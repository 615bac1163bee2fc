"""Thresholding: keep predicted images within the range of pixel values while sampling.

It wraps a `denoise`, so every sampler has it.
"""

from keras import ops

from diffusion.support.contracts import Denoise, Tensor


def thresholded(denoise: Denoise, low: Tensor, high: Tensor, percentile: float = 0.995) -> Denoise:
    """Return a `denoise` that keeps predicted images within the range of pixel values.

    Dynamic thresholding: find the range, at least that of pixel values, that holds the share
    `percentile` of a predicted image; clip the image to it and scale it to the range of pixel
    values. The predicted noise is recomputed to fit.
    low, high: black and white in normalised images; numbers, or one for each colour.
    percentile: in (0, 1]; 1 scales and never clips.
    Saharia et al. 2022 (arXiv:2205.11487), section 2.3.
    Raises ValueError for another percentile.
    """
    if not 0 < percentile <= 1:
        raise ValueError(f"threshold must be above 0 and at most 1, got {percentile}")
    middle, reach = (low + high) / 2, (high - low) / 2

    def thresholded_denoise(noisy_images, noise_rates, signal_rates):
        _, pred_images = denoise(noisy_images, noise_rates, signal_rates)
        pixels = (pred_images - middle) / reach  # in [-1, 1], unless too dark or too bright
        widths = ops.quantile(ops.abs(pixels), percentile, axis=(1, 2, 3), keepdims=True)
        widths = ops.maximum(widths, 1.0)
        pred_images = middle + reach * ops.clip(pixels, -widths, widths) / widths
        pred_noises = ops.divide_no_nan(noisy_images - signal_rates * pred_images, noise_rates)
        return pred_noises, pred_images

    return thresholded_denoise
