"""Generation: from noise to images, with any sampler, by name, guided, within the range of pixels.

A part of `DiffusionModel` in a module of its own. Each option wraps the model's `denoise`: labels
and guidance first, then self-conditioning, then thresholding.
"""

import inspect
from collections.abc import Callable
from typing import Any

import numpy as np
from keras import ops

from diffusion import latents
from diffusion.guidance import Interval, guided
from diffusion.labels import Labels, how_many, label_numbers
from diffusion.objectives import NoiseObjective, Objective
from diffusion.samplers import ddim
from diffusion.schedules import warn_about_the_end
from diffusion.self_conditioning import self_conditioned
from diffusion.support.contracts import Denoise, Sampler, Schedule, Seed, Tensor
from diffusion.thresholding import thresholded


class Generation:
    """Mixin for a diffusion model: `generate`, and what it is made of. Listings 8-11 and 8-12."""

    denoise: Callable
    denormalize: Callable
    schedule: Schedule
    objective: Objective
    class_names: tuple[str, ...]
    self_conditioned: bool
    image_size: int
    pixel_range: tuple[Tensor, Tensor]

    def reverse_diffusion(
        self,
        initial_noise: Tensor,
        steps: int = 20,
        sampler: Sampler = ddim,
        threshold: float | None = None,
        labels: Labels = None,
        guidance: float = 1.0,
        guidance_interval: Interval | None = None,
        classifier: Any = None,
        **options: Any,
    ) -> Tensor:
        """Remove noise step by step: normalised images from noise (B, S, S, 3). Listing 8-11.

        sampler: any function of the samplers' call shape; options are passed on to it.
        threshold: keep predicted images within the range of pixel values, clipping all but this
            share of their pixels, in (0, 1]; see `thresholding.thresholded`. None does not.
        labels: what to generate: a name, its number, or a sequence of them, one for each image.
        guidance, guidance_interval: how much the images should fit their labels, and at which noise
            rates; see `guidance.guided`.
        classifier: a `noisy_classifier.NoisyClassifier`: guide by its gradient, instead of by a
            network with labels; see `guidance.classifier_guided`.
        Raises ValueError for labels that do not exist or cannot be used, and for a classifier that
        was made for another kind of model.
        """
        denoise: Denoise = self.denoise
        if labels is not None:
            if classifier is not None:
                classifier.check_model(self)
            guide = self if classifier is None else classifier
            numbers = label_numbers(labels, guide.class_names, len(initial_noise))
            denoise = guide.guided(denoise, numbers, guidance, guidance_interval)
        elif guidance != 1 or guidance_interval or classifier:
            raise ValueError("guidance needs labels: what should the images show?")
        if self.self_conditioned:
            denoise = self_conditioned(denoise)
        if threshold is not None:
            denoise = thresholded(denoise, *self.pixel_range, threshold)
        return sampler(denoise, self.schedule, initial_noise, steps, **options)

    def guided(
        self, denoise: Callable, labels: Tensor, scale: float, interval: Interval | None = None
    ) -> Callable:
        """Return `denoise` for images with these labels, by classifier-free guidance."""
        return guided(denoise, labels, len(self.class_names), scale, interval)

    def generate(
        self,
        num_images: int | None = None,
        steps: int = 20,
        *,
        initial_noise: Tensor = None,
        seed: Seed = None,
        sampler: Sampler = ddim,
        labels: Labels = None,
        **options: Any,
    ) -> np.ndarray:
        """Generate images: float32 (num_images, S, S, 3) in [0, 1], as a NumPy array. Listing 8-12.

        initial_noise: where to start, (B, S, S, 3); without it, `seed` draws it.
        seed: an int gives the same images every time, None new ones each time. A sampler that takes
            a seed gets it too.
        labels: names or numbers of what to generate, one or one for each image; a sequence of them
            is enough to say how many images.
        sampler, options: a function of the samplers' call shape and its options (`eta`, ...), or
            `guidance`, `guidance_interval`, `classifier`, `threshold` of `reverse_diffusion`.
        Raises ValueError unless exactly one of num_images and initial_noise is given, and for
        labels that do not exist. Warns if the schedule's end does not suit sampling.
        """
        if initial_noise is None and num_images is None:
            num_images = how_many(labels)
        if (num_images is None) == (initial_noise is None):
            raise ValueError("generate needs either num_images or initial_noise")
        if num_images is not None:
            initial_noise = latents.initial_noise(num_images, self.image_size, seed)
        if "seed" in inspect.signature(sampler).parameters:
            options["seed"] = seed
        classifier = options.get("classifier") is not None
        divides_by_signal = isinstance(self.objective, NoiseObjective) or classifier
        warn_about_the_end(self.schedule, divides_by_signal and options.get("threshold") is None)
        images = self.reverse_diffusion(initial_noise, steps, sampler, labels=labels, **options)
        return ops.convert_to_numpy(self.denormalize(images))
