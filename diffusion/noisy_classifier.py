"""A classifier of noisy images: its gradient guides a model that knows no names.

The classifier sees what a diffusion model sees while it generates: normalised images with noise at
any level, and the noise variance. It learns `p(label|noisy image)` from the images' own labels; the
gradient of its logarithm says how to change a noisy image to make a label more likely (`guidance`).
`scripts/train_noisy_classifier.py` trains one in minutes. Dhariwal and Nichol 2021
(arXiv:2105.05233), section 4.
"""

import functools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Self

import keras
import numpy as np
from keras import layers, ops

from diffusion import latents, schedules  # noqa: F401 (registers schedules, so that files load)
from diffusion.guidance import Interval, classifier_guided
from diffusion.labels import named
from diffusion.modern_unet import Modulation
from diffusion.support.backend import compiled_gradient
from diffusion.support.contracts import Schedule, Tensor, check_network
from diffusion.support.keras_files import load_keras_file
from diffusion.support.normalization import FusedBatchNormalization, NormalizedImages
from diffusion.support.paths import shipped
from diffusion.unet import SinusoidalEmbedding, network_inputs

SHIPPED = shipped("noisy-classifier-64.keras")
ADVICE = "train one for this model with scripts/train_noisy_classifier.py --model"
ALIKE = 0.01  # statistics of two halves of a data set differ by less
NOISE_RATES = (0.0, 0.2, 0.4, 0.6, 0.8, 0.9)  # at which accuracy is measured


@keras.saving.register_keras_serializable(package="diffusion")
class NoisyClassifier(NormalizedImages, keras.Model):
    """Predicts the label of a noisy image.

    network: a functional Keras model, `noisy_images (B,S,S,3)` and `noise_variances (B,1,1,1)` ->
        logits `(B, len(class_names))`; see `build_noisy_classifier`.
    schedule: that of the diffusion model to guide; the noise of training follows it.
    class_names: the names that labels stand for.
    seed: of the training noise.

    Use it as a Keras model: `compile` with a loss of labels and logits, `set_statistics` to those
    of the diffusion model, `fit` on batches of `images` and `labels`, as `data.Batches` serves
    them. Then pass it to `DiffusionModel.generate(classifier=...)`.
    Raises ValueError where the network has another number of logits than there are names.
    """

    def __init__(
        self,
        network: keras.Model,
        schedule: Schedule,
        class_names: Sequence[str],
        seed: int = 0,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        if network.output_shape[-1] != len(class_names):
            raise ValueError(
                f"network returns {network.output_shape[-1]} logits for {len(class_names)} names: "
                "give it one for each"
            )
        self.network, self.schedule = network, schedule
        self.class_names, self.seed = tuple(class_names), seed
        self.image_size = check_network(network)["noisy_images"].shape[1]
        self.normalizer = self.build_normalizer()
        self.seed_generator = keras.random.SeedGenerator(seed)
        self.built = True  # all weights exist; Keras would otherwise wait for a first call

    def call(self, images: Tensor | dict[str, Tensor], training: bool = False) -> Tensor:
        """Add noise to a batch of images, each at a time of its own, and return logits.

        images: (B, S, S, 3), uint8 or float in [0, 1]; or a dictionary with `images` and `labels`.
        """
        images = self.normalize(named(images)[0])
        noises = keras.random.normal(ops.shape(images), seed=self.seed_generator)
        times = keras.random.uniform((ops.shape(images)[0], 1, 1, 1), seed=self.seed_generator)
        noise_rates, signal_rates = self.schedule(times)
        return self.logits(signal_rates * images + noise_rates * noises, noise_rates, training)

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        """Compare the labels of a batch `x` with the logits by the loss given to `compile`."""
        labels = named(x)[1]
        return super().compute_loss(x, labels, y_pred, sample_weight, training)

    def logits(self, noisy_images: Tensor, noise_rates: Tensor, training: bool = False) -> Tensor:
        """Return logits (B, N) of noisy images (B, S, S, 3), normalised, at rates (B, 1, 1, 1)."""
        return self.network(network_tensors(noisy_images, noise_rates), training=training)

    def gradient(self, noisy_images: Tensor, noise_rates: Tensor, labels: Tensor) -> Tensor:
        """Return the gradient of `log p(label|noisy image)` with respect to the noisy images.

        noisy_images: (B, S, S, 3), normalised, like the result. noise_rates: (B, 1, 1, 1).
        labels: (B,), whole numbers; `len(class_names)` means no name, whose gradient is zero.
        """
        inputs = network_tensors(noisy_images, noise_rates)
        return self._compiled_gradient(inputs, ops.convert_to_tensor(labels, "int32"))

    @functools.cached_property
    def _compiled_gradient(self):
        return compiled_gradient(self.network, "noisy_images", log_probabilities)

    def check_model(self, model: Any) -> None:
        """Raise ValueError unless the classifier can guide a model: its size and normalisation."""
        sizes = [each.image_size for each in (self, model)]
        if sizes[0] != sizes[1]:
            raise ValueError(
                f"the classifier is for images of {sizes[0]}x{sizes[0]}, the model's are "
                f"{sizes[1]}x{sizes[1]}: {ADVICE}"
            )
        ours, theirs = (np.stack(each.normalizer.get_weights()[:2]) for each in (self, model))
        if not np.allclose(ours, theirs, atol=ALIKE):
            raise ValueError(
                f"the classifier normalises images by mean and variance {ours[:, 0].round(2)}, the "
                f"model by {theirs[:, 0].round(2)} (red): {ADVICE}"
            )

    def guided(
        self,
        denoise: Callable[..., Any],
        labels: Tensor,
        scale: float,
        interval: Interval | None = None,
    ) -> Callable[..., Any]:
        """Return `denoise` for images with these labels; see `guidance.classifier_guided`."""
        return classifier_guided(denoise, self.gradient, labels, scale, interval)

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "network": keras.saving.serialize_keras_object(self.network),
            "schedule": keras.saving.serialize_keras_object(self.schedule),
            "class_names": self.class_names,
            "seed": self.seed,
        }

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Self:
        for part in ("network", "schedule"):
            config[part] = keras.saving.deserialize_keras_object(config[part])
        return cls(**config)


def network_tensors(noisy_images: Tensor, noise_rates: Tensor) -> dict[str, Tensor]:
    """Return the network's inputs by name: noisy images and noise *variances*."""
    noise_rates = ops.convert_to_tensor(noise_rates, "float32")
    noisy_images = ops.convert_to_tensor(noisy_images, "float32")
    return {"noisy_images": noisy_images, "noise_variances": noise_rates**2}


def log_probabilities(logits: Tensor, labels: Tensor) -> Tensor:
    """Return `log p(label)` (B,) from logits (B, N) and labels (B,), 0 for the label N: no name."""
    chosen = ops.one_hot(labels, logits.shape[-1])  # zeros for N
    return ops.sum(chosen * ops.log_softmax(logits, axis=-1), axis=-1)


def build_noisy_classifier(
    classes: int,
    image_size: int = 64,
    widths: tuple[int, ...] = (32, 64, 96, 128),
    embedding_dims: int = 32,
    dtype: str = "float32",
) -> keras.Model:
    """Return an untrained network: noisy images and noise variances -> logits (B, classes).

    widths: channels of the stages, each at half the resolution of the one before. Every stage is
        two convolutions, both modulated by an embedding of the noise variance.
    embedding_dims: length of the sinusoidal embedding; an MLP of `widths[-1]` units follows.
    dtype: a Keras policy, "float32" or "mixed_bfloat16"; the logits are float32 either way.
    """
    inputs = network_inputs(image_size)
    variances = layers.Flatten(dtype="float32")(inputs["noise_variances"])
    embedding = SinusoidalEmbedding(embedding_dims, name="noise_embedding")(variances)
    for _ in range(2):
        embedding = layers.Dense(widths[-1], activation="swish", dtype=dtype)(embedding)
    x = inputs["noisy_images"]
    for width in widths:
        x = _convolution(x, embedding, width, 2, dtype)
        x = layers.add([x, _convolution(x, embedding, width, 1, dtype)], dtype=dtype)
    x = layers.GlobalAveragePooling2D(dtype="float32")(x)
    x = layers.Dropout(0.2, dtype="float32")(x)
    logits = layers.Dense(classes, name="logits", dtype="float32")(x)
    return keras.Model(list(inputs.values()), logits, name="noisy_classifier")


def _convolution(x, embedding, width, strides, dtype):
    x = layers.Conv2D(width, 3, strides, padding="same", use_bias=False, dtype=dtype)(x)
    x = Modulation(dtype=dtype)([FusedBatchNormalization(dtype=dtype)(x), embedding])
    return layers.Activation("swish", dtype=dtype)(x)


def accuracy_by_noise(
    classifier: NoisyClassifier,
    images: np.ndarray,
    labels: np.ndarray,
    noise_rates: Sequence[float] = NOISE_RATES,
    seed: int = 0,
    batch_size: int = 128,
) -> dict[float, float]:
    """Return, for each noise rate, the share of images whose highest logit is their label's.

    images: (N, S, S, 3), uint8 or in [0, 1]; each gets the same noise, drawn from `seed`, at all
        rates. labels: whole numbers (N,).
    """
    noises = ops.convert_to_numpy(latents.initial_noise(len(images), classifier.image_size, seed))
    right = dict.fromkeys(noise_rates, 0)
    for start in range(0, len(images), batch_size):
        rows = slice(start, start + batch_size)
        clean = ops.convert_to_numpy(classifier.normalize(images[rows]))
        for rate in noise_rates:
            noisy_images = (1 - rate**2) ** 0.5 * clean + rate * noises[rows]
            rates = np.full((len(clean), 1, 1, 1), rate, "float32")
            logits = ops.convert_to_numpy(classifier.logits(noisy_images, rates))
            right[rate] += int((logits.argmax(axis=-1) == labels[rows]).sum())
    return {rate: count / len(images) for rate, count in right.items()}


def load_noisy_classifier(path: Path | str | None = None) -> NoisyClassifier:
    """Load a classifier of `scripts/train_noisy_classifier.py`, default the one that ships.

    Safe mode stays on. Raises FileNotFoundError where there is no file, ValueError where it is no
    such classifier.
    """
    path = Path(path or SHIPPED)
    if not path.is_file():
        raise FileNotFoundError(
            f"no classifier at {path}: train one with scripts/train_noisy_classifier.py"
        )
    classifier = load_keras_file(path, "a classifier of noisy images", compile=False)
    if not isinstance(classifier, NoisyClassifier):
        raise ValueError(f"{path} holds a {type(classifier).__name__}, not a NoisyClassifier")
    return classifier
