"""Normalisation: of the images by their statistics, and of a network's batches in one operation."""

from typing import Any

import keras
import numpy as np
from keras import layers, ops

from diffusion.support.backend import replica
from diffusion.support.contracts import Tensor
from diffusion.support.pixels import colour_statistics, scale_pixels


class NormalizedImages:
    """Mixin for a model that normalises images by their mean and variance: its `normalizer`."""

    normalizer: Any

    @staticmethod
    def build_normalizer() -> layers.Normalization:
        """Return a layer, saved with the model, that keeps a mean and a variance per colour."""
        normalizer = layers.Normalization(name="normalizer", dtype="float32")
        normalizer.build((None, None, None, 3))
        return normalizer

    def adapt(self, images: Tensor) -> None:
        """Learn each colour's mean and variance from `images` (N, S, S, 3), uint8 or in [0, 1]."""
        self.set_statistics(*colour_statistics(images))

    def set_statistics(self, mean: Tensor, variance: Tensor) -> None:
        """Set the images' mean and variance, as numbers or one per colour, instead of `adapt`.

        Mean 0.5 and variance 0.25 map images in [0, 1] to [-1, 1], as in DDPM.
        """
        mean, variance = np.broadcast_to(mean, 3), np.broadcast_to(variance, 3)
        self.normalizer.set_weights([mean, variance, np.array(0)])  # the third is not used
        self.normalizer.finalize_state()  # computes `mean` and `variance` from the weights

    @property
    def has_statistics(self) -> bool:
        """Whether `adapt` or `set_statistics` has been called."""
        mean, variance, _ = self.normalizer.get_weights()
        return (mean != 0).any() or (variance != 1).any()

    @property
    def pixel_range(self) -> tuple[Tensor, Tensor]:
        """Normalised black and white, one number per colour each."""
        mean, deviation = self.normalizer.mean, ops.sqrt(self.normalizer.variance)
        return (0.0 - mean) / deviation, (1.0 - mean) / deviation

    def normalize(self, images: Tensor) -> Tensor:
        """Map images, uint8 or float in [0, 1], to float32 with mean 0 and variance 1."""
        return self.normalizer(scale_pixels(images))

    def denormalize(self, images: Tensor) -> Tensor:
        """Map normalised images (B, S, S, 3) back to [0, 1], clipped."""
        images = self.normalizer.mean + images * ops.sqrt(self.normalizer.variance)
        return ops.clip(images, 0.0, 1.0)


@keras.saving.register_keras_serializable(package="diffusion")
class FusedBatchNormalization(layers.BatchNormalization):
    """Keras's `BatchNormalization` without scale and offset, fused into one pass on TensorFlow.

    Keras composes it there from a dozen elementwise operations in float32, which take a quarter of
    a training step on a CPU. This layer calls TensorFlow's fused operation in the input's
    precision; the statistics stay float32 and the results the same. Input and output
    `(B, S, S, C)`. Ioffe and Szegedy 2015 (arXiv:1502.03167), algorithms 1 and 2.
    """

    def __init__(self, **kwargs: Any):
        super().__init__(**{**kwargs, "center": False, "scale": False})

    def call(self, inputs, training=None, mask=None):
        if keras.backend.backend() != "tensorflow":
            return super().call(inputs, training=training, mask=mask)
        import tensorflow as tf

        learning = bool(training and self.trainable)
        if learning and replica()[1] > 1:
            self.synchronized = True  # the statistics of the joint batch, as on one device
            try:
                return super().call(inputs, training=training, mask=mask)
            finally:
                self.synchronized = False
        mean, variance = self.moving_mean.value, self.moving_variance.value
        outputs, batch_mean, batch_variance = tf.compat.v1.nn.fused_batch_norm(
            inputs,
            scale=tf.ones_like(mean),
            offset=tf.zeros_like(mean),
            mean=None if learning else mean,
            variance=None if learning else variance,
            epsilon=self.epsilon,
            is_training=learning,
        )
        if learning:
            # TensorFlow's batch variance here is divided by n - 1, Keras's by n.
            count = tf.cast(tf.size(inputs) / tf.size(mean), "float32")
            batch_variance = batch_variance * (count - 1) / count
            kept = self.momentum
            self.moving_mean.assign(kept * mean + (1 - kept) * batch_mean)
            self.moving_variance.assign(kept * variance + (1 - kept) * batch_variance)
        return outputs
