"""Train a classifier of noisy images, as `classifier` trains one of clean images."""

import keras
import numpy as np

from diffusion.data.batches import Batches
from diffusion.evaluation.classifier import augment
from diffusion.model import DiffusionModel
from diffusion.noisy_classifier import NoisyClassifier, build_noisy_classifier
from diffusion.support.backend import compile_with_xla
from diffusion.support.precision import choose_precision, in_float32


def train_noisy_classifier(
    model: DiffusionModel,
    images: np.ndarray,
    labels: np.ndarray,
    class_names: tuple[str, ...],
    *,
    epochs: int = 24,
    batch_size: int = 64,
    seed: int = 0,
    verbose: int = 1,
) -> NoisyClassifier:
    """Train a classifier that can guide `model`: of its schedule, statistics and image size.

    images, labels: uint8 (N, S, S, 3), augmented at random, and whole numbers (N,) below
        `len(class_names)`. Returned in float32 and without its optimizer. AdamW's learning rate
        decays from 0.002 to 0 along a cosine. Raises ValueError where the images do not fill a
        batch.
    """
    keras.utils.set_random_seed(seed)
    rng = np.random.default_rng(seed)
    batches = Batches(
        images,
        batch_size,
        labels=labels,
        seed=seed,
        transform=lambda images: np.stack([augment(image, rng) for image in images]),
    )
    network = build_noisy_classifier(
        len(class_names), model.image_size, dtype=choose_precision("auto")
    )
    classifier = NoisyClassifier(network, model.schedule, class_names, seed)
    mean, variance, _ = model.normalizer.get_weights()
    classifier.set_statistics(mean, variance)
    rate = keras.optimizers.schedules.CosineDecay(0.002, epochs * len(batches))
    classifier.compile(
        keras.optimizers.AdamW(rate, weight_decay=0.01),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        jit_compile=compile_with_xla(),
    )
    classifier.fit(batches, epochs=epochs, shuffle=False, verbose=verbose)
    trained = NoisyClassifier(in_float32(network), model.schedule, class_names, seed)
    trained.set_weights(classifier.get_weights())  # a copy without the optimizer
    trained.set_statistics(mean, variance)
    return trained
