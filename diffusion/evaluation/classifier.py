"""A small classifier of species: its last layer but one is what pictures are compared by.

No pictures of the world are asked for, as Inception's weights are: the flowers' own labels are
enough to learn what tells flowers apart. `scripts/train_encoder.py` trains it, `encoder` cuts its
head off.
"""

import keras
import numpy as np
from keras import layers, ops
from PIL import Image

from diffusion.support.files import write_json, written_whole
from diffusion.support.keras_files import shrink
from diffusion.support.pixels import scale_pixels
from diffusion.support.precision import choose_precision, in_float32
from diffusion.support.validation import whole_number

FEATURES = "features"  # the name of the layer that the encoder keeps


def build_classifier(classes, image_size=64, widths=(32, 64, 96, 128), dtype="float32"):
    """Return an untrained network: pictures (B, S, S, 3) in [0, 1] -> scores (B, classes).

    image_size: what it works at; pictures of any other size S are resized to it first.
    widths: channels of its stages, each of half the last one's size; the features have the last.
    dtype: a Keras policy, "float32" or "mixed_bfloat16"; the scores are float32 either way.
    """
    pictures = keras.Input((None, None, 3), name="pictures")
    resize = layers.Resizing(image_size, image_size, antialias=True, dtype="float32")
    # Keras's resizing takes itself to be training unless told otherwise, and all layers after it
    # go along: a plain call of the network would change what batch normalization has learnt.
    x = resize(pictures, training=False)
    x = layers.Rescaling(2.0, -1.0, dtype="float32")(x)
    x = _convolution(x, widths[0], 2, dtype)
    for stage, width in enumerate(widths):
        x = _convolution(x, width, 2 if stage else 1, dtype)
        # What it adds starts small: the shortcut carries the picture through an untrained network.
        x = layers.add([x, _convolution(x, width, 1, dtype)], dtype=dtype)
    x = layers.GlobalAveragePooling2D(name=FEATURES, dtype="float32")(x)
    x = layers.Dropout(0.2, dtype="float32")(x)
    scores = layers.Dense(classes, name="scores", dtype="float32")(x)
    return keras.Model(pictures, scores, name="classifier")


def _convolution(x, width, strides, dtype):
    x = layers.Conv2D(width, 3, strides, padding="same", use_bias=False, dtype=dtype)(x)
    return layers.Activation("relu", dtype=dtype)(layers.BatchNormalization(dtype=dtype)(x))


def train_classifier(
    images,
    labels,
    classes,
    *,
    validation=None,
    epochs=40,
    batch_size=64,
    learning_rate=0.002,
    precision="auto",
    seed=0,
    verbose=1,
    **build_options,
):
    """Train a classifier of `build_classifier` on changed copies of the pictures; return it.

    images, labels: uint8 (N, S, S, 3), and whole numbers (N,) below `classes`.
    validation: (images, labels) to be judged by after each epoch, or None.
    learning_rate: of AdamW at the start; it falls to 0 along a cosine.
    build_options: for `build_classifier`.

    The result computes in float32. It follows from `seed` on one machine, up to the order in which
    its threads add numbers up. Raises ValueError where a number is out of range.
    """
    epochs = whole_number("epochs", epochs, least=1)
    batch_size = whole_number("batch_size", batch_size, least=1)
    if len(images) < batch_size:
        raise ValueError(f"{len(images)} pictures do not fill a batch of {batch_size}")
    keras.utils.set_random_seed(seed)
    model = build_classifier(classes, dtype=choose_precision(precision), **build_options)
    steps = len(images) // batch_size
    model.compile(
        keras.optimizers.AdamW(
            keras.optimizers.schedules.CosineDecay(learning_rate, epochs * steps),
            weight_decay=0.01,
        ),
        keras.losses.CategoricalCrossentropy(from_logits=True, label_smoothing=0.1),
        metrics=["accuracy"],
        jit_compile=False if keras.backend.backend() == "tensorflow" else "auto",
    )
    if validation is not None:
        validation = as_floats(validation[0]), np.eye(classes, dtype="float32")[validation[1]]
    model.fit(
        changed_batches(images, np.eye(classes, dtype="float32")[labels], batch_size, seed),
        steps_per_epoch=steps,
        epochs=epochs,
        validation_data=validation,
        shuffle=False,
        verbose=verbose,
    )
    trained = in_float32(model)  # a copy without its optimizer
    trained.set_weights(model.get_weights())
    return trained


def changed_batches(images, targets, batch_size, seed):
    """Yield (pictures, targets) for ever: each epoch in a new order, no picture twice the same."""
    rng = np.random.default_rng(seed)
    while True:
        order = rng.permutation(len(images))
        for start in range(0, len(images) - batch_size + 1, batch_size):
            rows = order[start : start + batch_size]
            yield np.stack([change(images[row], rng) for row in rows]), targets[rows]


def change(image, rng):
    """Cut a part out of a picture, uint8 (S, S, 3), mirror it, light it otherwise: float32.

    The part has 40 to 100% of the area, stretched by up to a quarter, and is resized to the whole.
    """
    size = len(image)
    side, stretch = size * np.sqrt(rng.uniform(0.4, 1.0)), np.exp(rng.uniform(-0.22, 0.22) / 2)
    width, height = min(side * stretch, size), min(side / stretch, size)
    left, top = rng.uniform(0, size - width), rng.uniform(0, size - height)
    part = Image.fromarray(image).resize(
        (size, size), Image.Resampling.BILINEAR, (left, top, left + width, top + height)
    )
    pixels = np.asarray(part, "float32") / 255
    if rng.random() < 0.5:
        pixels = pixels[:, ::-1]
    mean = pixels.mean()
    pixels = mean * rng.uniform(0.8, 1.2) + (pixels - mean) * rng.uniform(0.8, 1.2)
    return np.clip(pixels * rng.uniform(0.95, 1.05, 3), 0, 1).astype("float32")


def accuracy(classifier, images, labels, batch_size=128):
    """Return the share of pictures (uint8 or in [0, 1]) whose highest score is their label's."""
    scores = classifier.predict(as_floats(images), batch_size=batch_size, verbose=0)
    return float((scores.argmax(axis=-1) == labels).mean())


def save_classifier(classifier, path, record):
    """Write it to the `.keras` file `path`, kernels in float16, and its record beside it.

    Raises ValueError unless `path` ends in .keras, OSError if it cannot be written.
    """
    if path.suffix != ".keras":
        raise ValueError(f"a classifier is saved as a .keras file, got {path}")
    with written_whole(path) as temporary:
        classifier.save(temporary)
        shrink(temporary)
    write_json(path.with_suffix(".json"), record)


def as_floats(images):
    """Pictures, uint8 or float in [0, 1], as a NumPy array of float32 in [0, 1]."""
    return ops.convert_to_numpy(scale_pixels(images))
