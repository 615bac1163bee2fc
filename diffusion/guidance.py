"""Guidance: make generated images fit their names more than they would by themselves.

By Bayes' rule the score of images with name c is that of all images plus that of a classifier,
`grad log p(x|c) = grad log p(x) + grad log p(c|x)`. Guidance multiplies the second part by a scale.
*Classifier guidance* takes it from a classifier of noisy images, *classifier-free guidance* from
two evaluations of one network, with the name and without. Scores are predicted noises but for a
factor, `score = -noise / noise_rate`, so both only change what is predicted: each is a wrapper of
`denoise`, and every sampler has it.
"""

import math
from collections.abc import Callable
from typing import Any

import keras
from keras import ops

from diffusion.support.backend import compiling, share_of_draws
from diffusion.support.contracts import Tensor

Interval = tuple[float, float]


def dropped(labels: Tensor, share: float, no_name: int, seed: Any) -> Tensor:
    """Return labels (B,), each replaced by `no_name` with probability `share`.

    Trained on these, one network learns the images of each name and those of all names together;
    `guided` needs both. seed: a `keras.random.SeedGenerator`.
    Ho and Salimans 2022 (arXiv:2207.12598), algorithm 1.
    """
    chances = share_of_draws(keras.random.uniform, ops.shape(labels), seed)
    return ops.where(chances < share, no_name, labels)


def guided(
    denoise: Callable[..., tuple[Tensor, Tensor]],
    labels: Tensor,
    no_name: int,
    scale: float = 1.0,
    interval: Interval | None = None,
) -> Callable[..., tuple[Tensor, Tensor]]:
    """Return a `denoise` for images with labels, by classifier-free guidance.

    Predicts `without + scale (with - without)`, from one network call on the doubled batch. Scale 0
    is the model without names, 1 the plain conditional model, each from a call on the batch itself.
    denoise: `denoise(noisy_images, noise_rates, signal_rates, labels=..., **options)`; options are
        tensors of the batch, such as `earlier_images`, or None.
    labels: (B,), whole numbers; `no_name` means no name.
    interval: (lowest, highest) noise rate at which guidance acts, both included; elsewhere the
        scale is 1. Kynkäänniemi et al. 2024 (arXiv:2404.07724).
    Ho and Salimans 2022 (arXiv:2207.12598), eq. 6 (its weight w is `scale - 1`).
    Raises ValueError for a scale that is not finite, or an interval outside [0, 1].
    """
    check_scale(scale, interval)
    labels = ops.convert_to_tensor(labels, "int32")
    nobody = ops.full_like(labels, no_name)

    def guided_denoise(noisy_images, noise_rates, signal_rates, **options):
        inputs = (noisy_images, noise_rates, signal_rates)
        scales = scale_at(noise_rates, scale, interval)
        if isinstance(scales, float) and scales in (0.0, 1.0):
            return denoise(*inputs, labels=labels if scales else nobody, **options)
        options = {name: _doubled(part) for name, part in options.items()}
        options["labels"] = ops.concatenate([labels, nobody])
        both = denoise(*map(_doubled, inputs), **options)
        return tuple(_beyond(prediction, scales) for prediction in both)

    return guided_denoise


def classifier_guided(
    denoise: Callable[..., tuple[Tensor, Tensor]],
    gradient: Callable[[Tensor, Tensor, Tensor], Tensor],
    labels: Tensor,
    scale: float = 1.0,
    interval: Interval | None = None,
) -> Callable[..., tuple[Tensor, Tensor]]:
    """Return a `denoise` for images with labels, by the gradient of a classifier.

    The predicted noise becomes `noise - scale noise_rate grad log p(label|noisy image)`, the
    predicted image follows from it.
    gradient: `gradient(noisy_images, noise_rates, labels)` -> that gradient, (B, S, S, 3); see
        `noisy_classifier.NoisyClassifier.gradient`.
    scale: 1 samples the images with the label if the classifier is right; 0 ignores it.
    interval: as for `guided`, but elsewhere the scale is 0.
    Dhariwal and Nichol 2021 (arXiv:2105.05233), algorithm 2.
    Raises ValueError as `guided` does.
    """
    check_scale(scale, interval)

    def guided_denoise(noisy_images, noise_rates, signal_rates, **options):
        predictions = denoise(noisy_images, noise_rates, signal_rates, **options)
        scales = scale_at(noise_rates, scale, interval, elsewhere=0.0)
        if isinstance(scales, float) and scales == 0.0:
            return predictions
        pred_noises, pred_images = predictions
        steps = scales * noise_rates * gradient(noisy_images, noise_rates, labels)
        # The two predictions still fit together: noise_rate noise + signal_rate image is x_t.
        return pred_noises - steps, pred_images + steps * noise_rates / signal_rates

    return guided_denoise


def scale_at(
    noise_rates: Tensor, scale: float, interval: Interval | None, elsewhere: float = 1.0
) -> float | Tensor:
    """Return the scale at noise rates (B, 1, 1, 1): one number where all images have the same."""
    if interval is None:
        return float(scale)
    lowest, highest = (float(rate) for rate in interval)
    inside = ops.logical_and(noise_rates >= lowest, noise_rates <= highest)
    if not compiling(noise_rates):
        here = ops.convert_to_numpy(inside)
        if here.all() or not here.any():
            return float(scale if here.all() else elsewhere)
    return ops.where(inside, scale, elsewhere)


def check_scale(scale: float, interval: Interval | None) -> None:
    """Raise ValueError for a scale that is not finite, or an interval that is none."""
    if not math.isfinite(scale):
        raise ValueError(f"guidance must be a finite number, got {scale}")
    if interval is None:
        return
    if len(interval) != 2 or not 0 <= interval[0] <= interval[1] <= 1:
        raise ValueError(
            "guidance_interval must be two noise rates in [0, 1], the lower one first, "
            f"got {interval}"
        )


def _doubled(part):
    return None if part is None else ops.concatenate([part, part])


def _beyond(prediction, scales):
    """From predictions with labels, then without: those with, moved away from those without."""
    with_labels, without = ops.split(prediction, 2)
    return with_labels + (scales - 1) * (with_labels - without)  # at scale 1 exactly the former
