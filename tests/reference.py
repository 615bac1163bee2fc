"""The chapter taken literally, but for its loss: listings 8-3 to 8-12 in plain TensorFlow.

Float32, an explicit `tf.GradientTape`, an eager sampling loop, no Keras `fit`. It is the oracle
for the tests and the baseline for benchmarks, so nothing here is shared with `diffusion/`. Where
the listings no longer run they are changed as little as possible: `Lambda` becomes a plain layer,
`optimizers.experimental.AdamW` becomes `optimizers.AdamW`. Where the chapter contradicts itself,
the text holds: the offset cosine schedule, and the average starting from the network.

The loss is the exception. Listing 8-10 passes `losses.mean_absolute_error`, a function that
averages over colours alone and returns one number per pixel; `tape.gradient` of these is the
gradient of their *sum*, B * S * S times that of the mean (262,144 times in the book). Adam divides
the factor out, except for its epsilon. The library takes the mean, and so does the reference
unless it is made with `reduction="sum"`.
"""

import math

import numpy as np
import tensorflow as tf
from keras import activations, layers, models, optimizers


def linear_diffusion_schedule(diffusion_times):
    """Listing 8-3, which multiplies along the batch; returns variances (not rates), as it does."""
    betas = 0.0001 + np.asarray(diffusion_times, "float64") * (0.02 - 0.0001)
    alpha_bars = np.cumprod(1 - betas)
    return 1 - alpha_bars, alpha_bars


def cosine_diffusion_schedule(diffusion_times):
    """Listing 8-4, first half."""
    angles = np.asarray(diffusion_times, "float64") * math.pi / 2
    return np.sin(angles), np.cos(angles)


def offset_cosine_diffusion_schedule(diffusion_times):
    """Listing 8-4, second half."""
    start_angle, end_angle = tf.acos(0.95), tf.acos(0.02)
    diffusion_angles = start_angle + diffusion_times * (end_angle - start_angle)
    return tf.sin(diffusion_angles), tf.cos(diffusion_angles)


class SinusoidalEmbedding(layers.Layer):
    """Listing 8-7."""

    def __init__(self, half=16, **kwargs):
        super().__init__(**kwargs)
        self.half = half

    def call(self, x):
        frequencies = tf.exp(tf.linspace(tf.math.log(1.0), tf.math.log(1000.0), self.half))
        angular_speeds = 2.0 * math.pi * frequencies
        return tf.concat([tf.sin(angular_speeds * x), tf.cos(angular_speeds * x)], axis=3)


def residual_block(x, width):
    """Listing 8-8."""
    residual = x if x.shape[3] == width else layers.Conv2D(width, kernel_size=1)(x)
    x = layers.BatchNormalization(center=False, scale=False)(x)
    x = layers.Conv2D(width, kernel_size=3, padding="same", activation=activations.swish)(x)
    x = layers.Conv2D(width, kernel_size=3, padding="same")(x)
    return layers.Add()([x, residual])


def build_unet(image_size=64, widths=(32, 64, 96, 128), block_depth=2, embedding_dims=32):
    """Listings 8-6 and 8-9."""
    noisy_images = layers.Input(shape=(image_size, image_size, 3))
    x = layers.Conv2D(widths[0], kernel_size=1)(noisy_images)
    noise_variances = layers.Input(shape=(1, 1, 1))
    noise_embedding = SinusoidalEmbedding(embedding_dims // 2)(noise_variances)
    noise_embedding = layers.UpSampling2D(size=image_size, interpolation="nearest")(noise_embedding)
    x = layers.Concatenate()([x, noise_embedding])
    skips = []
    for width in widths[:-1]:
        for _ in range(block_depth):
            x = residual_block(x, width)
            skips.append(x)
        x = layers.AveragePooling2D(pool_size=2)(x)
    for _ in range(block_depth):
        x = residual_block(x, widths[-1])
    for width in reversed(widths[:-1]):
        x = layers.UpSampling2D(size=2, interpolation="bilinear")(x)
        for _ in range(block_depth):
            x = layers.Concatenate()([x, skips.pop()])
            x = residual_block(x, width)
    x = layers.Conv2D(3, kernel_size=1, kernel_initializer="zeros")(x)
    return models.Model([noisy_images, noise_variances], x)


class Reference:
    """The chapter's `DiffusionModel`, listings 8-5, 8-11 and 8-12, without `keras.Model.fit`.

    reduction: of the loss over batch and pixels: "mean" as in the library, "sum" as in the book.
    """

    def __init__(self, network, mean, variance, reduction="mean"):
        self.reduce = {"mean": tf.reduce_mean, "sum": tf.reduce_sum}[reduction]
        self.network = network
        self.ema_network = models.clone_model(network)
        self.ema_network.set_weights(network.get_weights())
        self.mean, self.variance = mean, variance
        self.optimizer = optimizers.AdamW(learning_rate=1e-3, weight_decay=1e-4)

    def denoise(self, noisy_images, noise_rates, signal_rates, training):
        network = self.network if training else self.ema_network
        pred_noises = network([noisy_images, noise_rates**2], training=training)
        pred_images = (noisy_images - noise_rates * pred_noises) / signal_rates
        return pred_noises, pred_images

    def gradients(self, images, noises, diffusion_times):
        """The mean loss of a batch and the gradients; see `train_step`."""
        images = (images - self.mean) / self.variance**0.5
        noise_rates, signal_rates = offset_cosine_diffusion_schedule(diffusion_times)
        noisy_images = signal_rates * images + noise_rates * noises
        with tf.GradientTape() as tape:
            pred_noises, _ = self.denoise(noisy_images, noise_rates, signal_rates, training=True)
            noise_losses = tf.reduce_mean(tf.abs(noises - pred_noises), axis=-1)  # (B, S, S)
            noise_loss = self.reduce(noise_losses)
        gradients = tape.gradient(noise_loss, self.network.trainable_weights)
        return tf.reduce_mean(noise_losses), gradients

    def train_step(self, images, noises, diffusion_times):
        """One step on images in [0, 1], given noises and times; returns the mean loss."""
        noise_loss, gradients = self.gradients(images, noises, diffusion_times)
        self.optimizer.apply_gradients(zip(gradients, self.network.trainable_weights, strict=True))
        for weight, ema_weight in zip(self.network.weights, self.ema_network.weights, strict=True):
            ema_weight.assign(0.999 * ema_weight + (1 - 0.999) * weight)
        return noise_loss

    def reverse_diffusion(self, initial_noise, steps):
        step_size = 1.0 / steps
        current_images = initial_noise
        for step in range(steps):
            diffusion_times = tf.ones((len(initial_noise), 1, 1, 1)) - step * step_size
            noise_rates, signal_rates = offset_cosine_diffusion_schedule(diffusion_times)
            pred_noises, pred_images = self.denoise(
                current_images, noise_rates, signal_rates, training=False
            )
            next_noise_rates, next_signal_rates = offset_cosine_diffusion_schedule(
                diffusion_times - step_size
            )
            current_images = next_signal_rates * pred_images + next_noise_rates * pred_noises
        return pred_images

    def generate(self, initial_noise, steps):
        images = self.reverse_diffusion(initial_noise, steps)
        return tf.clip_by_value(self.mean + images * self.variance**0.5, 0.0, 1.0)
