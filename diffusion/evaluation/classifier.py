"""A small flower classifier; its penultimate layer gives the features for KID and FID.

No ImageNet weights are needed: the flowers' own labels are enough to learn what tells flowers
apart. `scripts/train_encoder.py` trains the classifier, `encoder` removes its head.
"""

from collections.abc import Iterator
from pathlib import Path

import keras
import numpy as np
from keras import layers, ops
from PIL import Image

from diffusion.support.keras_files import save_small
from diffusion.support.pixels import scale_pixels
from diffusion.support.precision import choose_precision, in_float32
from diffusion.support.validation import whole_number

FEATURES = "features"  # the name of the layer that the encoder keeps


def build_classifier(
    classes: int,
    image_size: int = 64,
    widths: tuple[int, ...] = (32, 64, 96, 128),
    dtype: str = "float32",
) -> keras.Model:
    """Return an untrained network: images (B, S, S, 3) in [0, 1] -> logits (B, classes).

    image_size: the resolution it works at; images of any other size S are resized to it first.
    widths: channels of the stages, each at half the resolution of the one before; the last is the
        number of features.
    dtype: a Keras policy, "float32" or "mixed_bfloat16"; the logits are float32 either way.
    """
    images = keras.Input((None, None, 3), name="images")
    resize = layers.Resizing(image_size, image_size, antialias=True, dtype="float32")
    # Keras's resizing assumes training unless told otherwise, and passes that on to the layers
    # after it: a plain call of the network would update the statistics of batch normalization.
    x = resize(images, training=False)
    x = layers.Rescaling(2.0, -1.0, dtype="float32")(x)
    x = _convolution(x, widths[0], 2, dtype)
    for stage, width in enumerate(widths):
        x = _convolution(x, width, 2 if stage else 1, dtype)
        x = layers.add([x, _convolution(x, width, 1, dtype)], dtype=dtype)
    x = layers.GlobalAveragePooling2D(name=FEATURES, dtype="float32")(x)
    x = layers.Dropout(0.2, dtype="float32")(x)
    scores = layers.Dense(classes, name="scores", dtype="float32")(x)
    return keras.Model(images, scores, name="classifier")


def _convolution(x, width, strides, dtype):
    x = layers.Conv2D(width, 3, strides, padding="same", use_bias=False, dtype=dtype)(x)
    return layers.Activation("relu", dtype=dtype)(layers.BatchNormalization(dtype=dtype)(x))


def train_classifier(
    images: np.ndarray,
    labels: np.ndarray,
    classes: int,
    *,
    validation: tuple[np.ndarray, np.ndarray] | None = None,
    epochs: int = 40,
    batch_size: int = 64,
    learning_rate: float = 0.002,
    precision: str = "auto",
    seed: int = 0,
    verbose: int = 1,
    **build_options,
) -> keras.Model:
    """Train a classifier of `build_classifier` on augmented images; return it in float32.

    images, labels: uint8 (N, S, S, 3), and whole numbers (N,) below `classes`.
    validation: (images, labels) to evaluate after each epoch.
    learning_rate: AdamW's at the start; it decays to 0 along a cosine.
    build_options: for `build_classifier`.

    The same seed gives the same result on one machine, up to the order in which its threads add
    numbers. Raises ValueError where a number is out of range.
    """
    epochs = whole_number("epochs", epochs, least=1)
    batch_size = whole_number("batch_size", batch_size, least=1)
    if len(images) < batch_size:
        raise ValueError(f"{len(images)} images do not fill a batch of {batch_size}")
    keras.utils.set_random_seed(seed)
    model = build_classifier(classes, dtype=choose_precision(precision), **build_options)
    steps = len(images) // batch_size
    rate = keras.optimizers.schedules.CosineDecay(learning_rate, epochs * steps)
    model.compile(
        keras.optimizers.AdamW(rate, weight_decay=0.01),
        keras.losses.CategoricalCrossentropy(from_logits=True, label_smoothing=0.1),
        metrics=["accuracy"],
        jit_compile=False if keras.backend.backend() == "tensorflow" else "auto",
    )
    if validation is not None:
        validation = as_floats(validation[0]), np.eye(classes, dtype="float32")[validation[1]]
    model.fit(
        augmented_batches(images, np.eye(classes, dtype="float32")[labels], batch_size, seed),
        steps_per_epoch=steps,
        epochs=epochs,
        validation_data=validation,
        shuffle=False,
        verbose=verbose,
    )
    trained = in_float32(model)  # a copy without its optimizer
    trained.set_weights(model.get_weights())
    return trained


def augmented_batches(
    images: np.ndarray, targets: np.ndarray, batch_size: int, seed: int
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield batches (augmented images, targets) forever, each epoch in a new order."""
    rng = np.random.default_rng(seed)
    while True:
        order = rng.permutation(len(images))
        for start in range(0, len(images) - batch_size + 1, batch_size):
            rows = order[start : start + batch_size]
            yield np.stack([augment(images[row], rng) for row in rows]), targets[rows]


def augment(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Crop, flip and relight an image, uint8 (S, S, 3), at random: float32 (S, S, 3) in [0, 1].

    The crop has 40 to 100% of the area, stretched by up to a quarter, and is resized to S.
    """
    size = len(image)
    side, stretch = size * np.sqrt(rng.uniform(0.4, 1.0)), np.exp(rng.uniform(-0.22, 0.22) / 2)
    width, height = min(side * stretch, size), min(side / stretch, size)
    left, top = rng.uniform(0, size - width), rng.uniform(0, size - height)
    crop = Image.fromarray(image).resize(
        (size, size), Image.Resampling.BILINEAR, (left, top, left + width, top + height)
    )
    pixels = np.asarray(crop, "float32") / 255
    if rng.random() < 0.5:
        pixels = pixels[:, ::-1]
    mean = pixels.mean()
    pixels = mean * rng.uniform(0.8, 1.2) + (pixels - mean) * rng.uniform(0.8, 1.2)
    return np.clip(pixels * rng.uniform(0.95, 1.05, 3), 0, 1).astype("float32")


def accuracy(
    classifier: keras.Model, images: np.ndarray, labels: np.ndarray, batch_size: int = 128
) -> float:
    """Return the share of images (uint8 or in [0, 1]) whose highest score is their label's."""
    scores = classifier.predict(as_floats(images), batch_size=batch_size, verbose=0)
    return float((scores.argmax(axis=-1) == labels).mean())


def save_classifier(classifier: keras.Model, path: Path, record: dict) -> None:
    """Write a classifier to the `.keras` file `path`, kernels in float16, its record beside it.

    Raises ValueError unless `path` ends in .keras, OSError if it cannot be written.
    """
    save_small(classifier, path, record)


def as_floats(images: np.ndarray) -> np.ndarray:
    """Return images, uint8 or float in [0, 1], as a NumPy array of float32 in [0, 1]."""
    return ops.convert_to_numpy(scale_pixels(images))
