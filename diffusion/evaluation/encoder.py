"""Encoders: pictures -> features, by which `diffusion.evaluation.metrics` compares them.

Any function or Keras model, pictures (B, S, S, 3) in [0, 1] -> features (B, D), will do. Here are
the flowers' own, which ships, and Inception's, by which figures are published.
"""

from pathlib import Path

import keras
import numpy as np
from keras import layers, ops

from diffusion.evaluation.classifier import FEATURES, as_floats
from diffusion.support.keras_files import first_line, load_keras_file
from diffusion.support.paths import shipped

SHIPPED = shipped("encoder-64.keras")
INCEPTION_SIZES = (75, 299)
WITHOUT_INCEPTION = (
    "give the path of inception_v3_weights_tf_dim_ordering_tf_kernels_notop.h5, or take the "
    "flowers' own encoder (load_encoder(), --encoder flowers)"
)


def load_encoder(path=None):
    """Load the encoder of a classifier that `scripts/train_encoder.py` has trained.

    path: its `.keras` file; default the one that ships, trained on the Oxford flowers at 64x64:
        128 features. (`models/README.md` says how good it is, and for what.)
    Returns a Keras model that takes pictures of any size S. What it finds similar, another encoder
    may not: its KID and FID cannot be compared with Inception's.
    Raises FileNotFoundError if it is not there, ValueError if it is no such classifier.
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


def inception(image_size=299, weights="imagenet"):
    """Return InceptionV3 up to its last pooling: pictures (B, S, S, 3) -> features (B, 2048).

    image_size: to what pictures are resized first (bilinear, not antialiased): 299 as in the
        papers, 75 as in Keras's own example, the least that the network takes. The published
        figures for these flowers are at 75.
    weights: "imagenet", which Keras downloads (88 MB) and keeps; the path of such a file
        (`inception_v3_weights_tf_dim_ordering_tf_kernels_notop.h5`); or None, random ones.
    Szegedy et al. 2015 (arXiv:1512.00567). Most papers take the weights of 2015 that FID was
    defined with; Keras has others, so that its figures are close to theirs, but not the same.
    Raises ValueError for another size, FileNotFoundError for a path where nothing is, RuntimeError
    where the weights cannot be had.
    """
    if image_size not in INCEPTION_SIZES:
        raise ValueError(f"Inception's image_size must be 75 or 299, got {image_size!r}")
    if weights not in (None, "imagenet") and not Path(weights).is_file():
        raise FileNotFoundError(f"no Inception weights at {weights}: {WITHOUT_INCEPTION}")
    pictures = keras.Input((None, None, 3), name="pictures")
    resized = layers.Resizing(image_size, image_size)(pictures, training=False)
    scaled = layers.Rescaling(2.0, -1.0)(resized)
    try:
        network = keras.applications.InceptionV3(
            include_top=False,
            weights=weights if weights is None else str(weights),
            input_shape=(image_size, image_size, 3),
            pooling="avg",
        )
    except Exception as error:  # whatever a refused download or a damaged file makes Keras raise
        raise RuntimeError(
            f"no Inception weights from {str(weights)!r} ({first_line(error)}): {WITHOUT_INCEPTION}"
        ) from error
    encoder = keras.Model(pictures, network(scaled), name=f"inception_{image_size}")
    encoder.trainable = False
    return encoder


def choose_encoder(name="flowers"):
    """Return (encoder, its name for people) by the name that a command line gives.

    name: "flowers", "inception-75", "inception-299", or the path of a `.keras` file of
    `scripts/train_encoder.py`. Raises ValueError for anything else.
    """
    sizes = {f"inception-{size}": size for size in INCEPTION_SIZES}
    if name in sizes:
        return inception(sizes[name]), f"InceptionV3 at {sizes[name]} pixels"
    if name == "flowers":
        return load_encoder(), "the flowers' encoder"
    if not str(name).endswith(".keras"):
        choices = ", ".join(["flowers", *sizes])
        raise ValueError(f"no encoder {str(name)!r}: choose {choices}, or name a .keras file")
    return load_encoder(name), f"the encoder {Path(name).name}"


def encode(encoder, images, batch_size=64, on_batch=None):
    """Return the features of all pictures, uint8 or in [0, 1]: float32 (N, D), as a NumPy array.

    on_batch: called with the number of pictures done after each batch, to show progress.
    Raises ValueError where the encoder gives something else than (B, D), or no finite numbers.
    """
    options = {"training": False} if isinstance(encoder, keras.Layer) else {}
    features = []
    for start in range(0, len(images), batch_size):
        batch = as_floats(images[start : start + batch_size])
        features.append(np.asarray(ops.convert_to_numpy(encoder(batch, **options)), "float32"))
        if features[-1].ndim != 2 or len(features[-1]) != len(batch):
            raise ValueError(
                f"an encoder must give (B, D), got {features[-1].shape} for {len(batch)} pictures"
            )
        if on_batch is not None:
            on_batch(len(batch))
    features = np.concatenate(features)
    if not np.isfinite(features).all():
        raise ValueError("the encoder gives features that are not finite")
    return features
