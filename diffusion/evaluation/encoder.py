"""Encoders: images -> features, in which `diffusion.evaluation.metrics` compares them.

An encoder is any function or Keras model: images (B, S, S, 3) in [0, 1] -> features (B, D). This
module has the flowers' own, which ships, and Inception, the one behind published figures.
"""

from collections.abc import Callable
from pathlib import Path

import keras
import numpy as np
from keras import layers, ops

from diffusion.evaluation.classifier import FEATURES, as_floats
from diffusion.support.keras_files import first_line, load_keras_file
from diffusion.support.paths import shipped

Encoder = Callable[[np.ndarray], np.ndarray]

SHIPPED = shipped("encoder-64.keras")
INCEPTION_SIZES = (75, 299)
ENCODERS = ("flowers", "inception-75", "inception-299")
WITHOUT_INCEPTION = (
    "give the path of inception_v3_weights_tf_dim_ordering_tf_kernels_notop.h5, or use the "
    "flowers' own encoder (load_encoder(), --encoder flowers)"
)


def load_encoder(path: Path | str | None = None) -> keras.Model:
    """Load the encoder of a classifier trained by `scripts/train_encoder.py`.

    path: its `.keras` file; default the one that ships, trained on the Oxford flowers at 64x64,
        with 128 features. (`models/README.md` says how good it is, and for what.)
    Returns a Keras model for images of any size S. Its KID and FID cannot be compared with
    Inception's: encoders differ in what they find similar.
    Raises FileNotFoundError where there is no file, ValueError where it is no such classifier.
    """
    path = Path(path or SHIPPED)
    if not path.is_file():
        raise FileNotFoundError(f"no encoder at {path}: train one with scripts/train_encoder.py")
    classifier = load_keras_file(path, "an encoder", compile=False)
    try:
        features = classifier.get_layer(FEATURES).output
    except (ValueError, AttributeError) as error:
        raise ValueError(f"{path} is not an encoder of scripts/train_encoder.py") from error
    encoder = keras.Model(classifier.input, features, name="encoder")
    encoder.trainable = False
    return encoder


def inception(image_size: int = 299, weights: Path | str | None = "imagenet") -> keras.Model:
    """Return InceptionV3 up to its last pooling: images (B, S, S, 3) -> features (B, 2048).

    image_size: images are resized to it first (bilinear, not antialiased): 299 as in the papers, or
        75 as in Keras's own example, the least that the network takes. The published figures for
        these flowers are at 75.
    weights: "imagenet", which Keras downloads (88 MB) and keeps; the path of such a file
        (`inception_v3_weights_tf_dim_ordering_tf_kernels_notop.h5`); or None for random ones.
    Szegedy et al. 2015 (arXiv:1512.00567). Most papers use the weights of 2015 that FID was defined
    with; Keras has others, so its figures are close to theirs but not the same.
    Raises ValueError for another size, FileNotFoundError for a missing file, RuntimeError where the
    weights cannot be downloaded or read.
    """
    if image_size not in INCEPTION_SIZES:
        raise ValueError(f"Inception's image_size must be 75 or 299, got {image_size!r}")
    if weights not in (None, "imagenet") and not Path(weights).is_file():
        raise FileNotFoundError(f"no Inception weights at {weights}: {WITHOUT_INCEPTION}")
    images = keras.Input((None, None, 3), name="images")
    resized = layers.Resizing(image_size, image_size)(images, training=False)
    scaled = layers.Rescaling(2.0, -1.0)(resized)
    try:
        network = keras.applications.InceptionV3(
            include_top=False,
            weights=weights if weights is None else str(weights),
            input_shape=(image_size, image_size, 3),
            pooling="avg",
        )
    except Exception as error:  # Keras raises plain ones for a failed download
        raise RuntimeError(
            f"no Inception weights from {str(weights)!r} ({first_line(error)}): {WITHOUT_INCEPTION}"
        ) from error
    encoder = keras.Model(images, network(scaled), name=f"inception_{image_size}")
    encoder.trainable = False
    return encoder


def choose_encoder(name: Path | str = "flowers") -> tuple[keras.Model, str]:
    """Return an encoder by the name that a command line gives, and a description of it.

    name: one of `ENCODERS`, or a `.keras` file of `scripts/train_encoder.py`. Raises ValueError for
    anything else.
    """
    if name == "flowers":
        return load_encoder(), "the flowers' encoder"
    if name in ENCODERS:
        size = int(str(name).removeprefix("inception-"))
        return inception(size), f"InceptionV3 at {size} pixels"
    if not str(name).endswith(".keras"):
        choices = ", ".join(ENCODERS)
        raise ValueError(f"no encoder {str(name)!r}: choose {choices}, or name a .keras file")
    return load_encoder(name), f"the encoder {Path(name).name}"


def encode(
    encoder: Encoder,
    images: np.ndarray,
    batch_size: int = 64,
    on_progress: Callable[[int], object] | None = None,
) -> np.ndarray:
    """Return the features of images, uint8 or in [0, 1]: float32 (N, D), as a NumPy array.

    on_progress: a callback for the number of images encoded, after each batch.
    Raises ValueError where the encoder returns another shape than (B, D), or no finite numbers.
    """
    options = {"training": False} if isinstance(encoder, keras.Layer) else {}
    features = []
    for start in range(0, len(images), batch_size):
        batch = as_floats(images[start : start + batch_size])
        features.append(np.asarray(ops.convert_to_numpy(encoder(batch, **options)), "float32"))
        if features[-1].ndim != 2 or len(features[-1]) != len(batch):
            raise ValueError(
                f"an encoder must return (B, D), got {features[-1].shape} for {len(batch)} images"
            )
        if on_progress is not None:
            on_progress(len(batch))
    joined = np.concatenate(features)
    if not np.isfinite(joined).all():
        raise ValueError("the encoder returned features that are not finite")
    return joined
