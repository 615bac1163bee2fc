"""KID and FID as Keras metrics: distances between two sets of images in any encoder's features.

An encoder is a function or Keras model: images (B, S, S, 3) in [0, 1] -> features (B, D); `encoder`
has some. Compare only distances measured with the same encoder, at the same resolution, on as many
images; the distance between two sets of real images is the smallest to hope for.
"""

import base64
import io

import keras
import numpy as np
from keras import ops

from diffusion.evaluation.distances import frechet_distance, kernel_distance
from diffusion.evaluation.encoder import Encoder
from diffusion.support.backend import compiling
from diffusion.support.pixels import scale_pixels

OVER = ("batches", "sample")


class _ImageMetric(keras.metrics.Metric):
    """The base of both metrics: applies the encoder, and keeps features where they are needed."""

    def __init__(self, encoder: Encoder, name: str, **kwargs):
        super().__init__(name=name, **kwargs)
        if not callable(encoder):
            raise ValueError(f"encoder must be a function or a Keras model, got {encoder!r}")
        self.encoder = encoder
        self._kept = ([], [])

    def compared(self, real_images, generated_images, sample_weight=None):
        """Return the features of both; Keras passes every metric a weight, which must be None."""
        if sample_weight is not None:
            raise ValueError(f"{self.name} takes images without sample weights")
        return self.features(real_images), self.features(generated_images)

    def features(self, images):
        """Return the encoder's features of images, uint8 or in [0, 1]: float32 (B, D)."""
        images = scale_pixels(ops.convert_to_tensor(images))
        training = {"training": False} if isinstance(self.encoder, keras.Layer) else {}
        return ops.cast(self.encoder(images, **training), "float32")

    def keep(self, *features):
        """Keep a batch's features of real and of generated images."""
        if any(compiling(batch) for batch in features):
            raise RuntimeError(
                f"{self.name} keeps all features, which a compiled step cannot: call update_state "
                "yourself, or on TensorFlow compile the model with run_eagerly=True"
            )
        for kept, batch in zip(self._kept, features, strict=True):
            kept.append(ops.convert_to_numpy(batch))

    def kept(self) -> tuple[np.ndarray, np.ndarray]:
        """Return all features kept, (M, D) of the real and (N, D) of the generated images."""
        real, generated = (np.concatenate(r) if r else np.empty((0, 1)) for r in self._kept)
        return real, generated

    def reset_state(self):
        super().reset_state()
        for rows in self._kept:
            rows.clear()

    def get_config(self):
        return {**super().get_config(), "encoder": _serialized(self.encoder)}

    @classmethod
    def from_config(cls, config):
        return cls(**{**config, "encoder": _deserialized(config["encoder"])})


@keras.saving.register_keras_serializable(package="diffusion")
class KID(_ImageMetric):
    """Kernel inception distance: an unbiased MMD^2 of two sets of images. 0 is best.

    encoder: images (B, S, S, 3) in [0, 1] -> features (B, D). A Keras model is saved with the
        metric, weights included.
    over: "batches" averages the estimates of batches (skipping those of a single image), as figures
        published with Keras do; it works in any `compile`. "sample" keeps all features and compares
        them at once, unbiased too and with less scatter; call `update_state` yourself.
    groups: for the standard error over the sample; see `kernel_distance`.

    `update_state(real_images, generated_images)` takes images in [0, 1] or uint8. Without images
    the result over batches is NaN; over the sample it raises ValueError.
    Binkowski et al. 2018 (arXiv:1801.01401). Raises ValueError for another `over`.
    """

    def __init__(
        self,
        encoder: Encoder,
        over: str = "batches",
        groups: int = 10,
        name: str = "kid",
        **kwargs,
    ):
        super().__init__(encoder, name, **kwargs)
        if over not in OVER:
            raise ValueError(f"no KID over {over!r}: choose one of {', '.join(OVER)}")
        self.over, self.groups = over, groups
        if over == "batches":
            self.count = self.add_weight((), "zeros", name="count")
            self.mean = self.add_weight((), "zeros", name="mean")
            # the sum of squared deviations from the mean, for the standard error
            self.squares = self.add_weight((), "zeros", name="squares")

    def update_state(self, real_images, generated_images, sample_weight=None):
        real, generated = self.compared(real_images, generated_images, sample_weight)
        if self.over == "sample":
            return self.keep(real, generated)
        estimate, counts = _batch_estimate(real, generated)
        # Welford's algorithm: plain sums of squares would cancel.
        count = self.count + counts
        step = counts * (estimate - self.mean)
        mean = self.mean + step / ops.maximum(count, 1.0)
        self.squares.assign(self.squares + step * (estimate - mean))
        self.mean.assign(mean)
        self.count.assign(count)

    def result(self):
        if self.over == "sample":
            return ops.cast(kernel_distance(*self.kept(), self.groups)[0], "float32")
        return ops.where(self.count > 0, ops.convert_to_tensor(self.mean), np.nan)

    def standard_error(self) -> float:
        """Return the standard error of the result, NaN where there is too little to estimate it."""
        if self.over == "sample":
            return kernel_distance(*self.kept(), self.groups)[1]
        count, squares = (float(ops.convert_to_numpy(v)) for v in (self.count, self.squares))
        return float(np.sqrt(squares / (count - 1) / count)) if count > 1 else float("nan")

    def get_config(self):
        return {**super().get_config(), "over": self.over, "groups": self.groups}


def _batch_estimate(real, generated):
    """Return a batch's estimate and 1.0, as tensors; 0.0 and 0.0 for a single image."""
    count, other = (ops.cast(ops.shape(rows)[0], "float32") for rows in (real, generated))

    def kernel(a, b):
        return (ops.matmul(a, ops.transpose(b)) / a.shape[-1] + 1.0) ** 3

    def mean_of_two(rows, count):
        sums = kernel(rows, rows)
        others = ops.sum(sums * (1.0 - ops.eye(ops.shape(rows)[0])))
        return others / ops.maximum(count * (count - 1.0), 1.0)

    within = mean_of_two(real, count) + mean_of_two(generated, other)
    counts = ops.cast(ops.minimum(count, other) > 1.0, "float32")
    return counts * (within - 2.0 * ops.mean(kernel(real, generated))), counts


@keras.saving.register_keras_serializable(package="diffusion")
class FID(_ImageMetric):
    """Frechet inception distance of two sets of images, at least 0: the smaller the better.

    encoder: as for `KID`. The metric keeps all features, so call
    `update_state(real_images, generated_images)` yourself, with images in [0, 1] or uint8. The
    distance is computed in float64; its bias falls with the number of images, see
    `frechet_distance`. Heusel et al. 2017 (arXiv:1706.08500).
    """

    def __init__(self, encoder: Encoder, name: str = "fid", **kwargs):
        super().__init__(encoder, name, **kwargs)

    def update_state(self, real_images, generated_images, sample_weight=None):
        self.keep(*self.compared(real_images, generated_images, sample_weight))

    def result(self):
        return ops.cast(frechet_distance(*self.kept()), "float32")


def _serialized(encoder):
    config = {"object": keras.saving.serialize_keras_object(encoder)}
    if isinstance(encoder, keras.Layer):  # a layer's own config has no weights
        buffer = io.BytesIO()
        np.savez_compressed(buffer, *encoder.get_weights())
        config["weights"] = base64.b64encode(buffer.getvalue()).decode()
    return config


def _deserialized(config):
    encoder = keras.saving.deserialize_keras_object(config["object"])
    if "weights" in config:
        with np.load(io.BytesIO(base64.b64decode(config["weights"]))) as arrays:
            encoder.set_weights([arrays[name] for name in arrays.files])
    return encoder
