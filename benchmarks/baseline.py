"""The chapter taken literally (tests/reference.py), as the benchmark runs it: in its best light.

The whole training step is compiled, noise and times are drawn inside it, and the batch already lies
in memory as float32. Sampling is the chapter's loop, the input pipeline listing 8-2's.
"""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import keras
import numpy as np
import tensorflow as tf

from benchmarks.measures import timed

ROOT = Path(__file__).resolve().parents[1]


def load_reference() -> ModuleType:
    """Import tests/reference.py from its path."""
    spec = importlib.util.spec_from_file_location("reference", ROOT / "tests" / "reference.py")
    reference = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(reference)
    return reference


class Chapter:
    """The reference's cases; `measures.Ours` has the library's."""

    def __init__(self, config):
        self.config, self.reference = config, load_reference()

    def new_model(self):
        config, reference = self.config, self.reference
        network = reference.build_unet(
            config.image_size, config.widths, config.block_depth, config.embedding_dims
        )
        mean, variance = np.full(3, 0.4, "float32"), np.full(3, 0.08, "float32")
        return reference.Reference(network, mean, variance)

    def training(self, jit_compile):
        """Case: steps of the chapter's `train_step`, compiled with XLA if `jit_compile`."""
        model, size = self.new_model(), self.config.image_size
        model.optimizer.build(model.network.trainable_weights)
        images = tf.random.uniform((self.config.batch_size, size, size, 3))

        @tf.function(jit_compile=jit_compile)
        def train_step(images):
            noises = tf.random.normal(images.shape)
            diffusion_times = tf.random.uniform((images.shape[0], 1, 1, 1))
            return model.train_step(images, noises, diffusion_times)

        return timed(lambda: float(train_step(images)))

    def sampling(self, num_images, steps):
        """Case: generate `num_images` in `steps` steps of the chapter's eager loop."""
        model, size = self.new_model(), self.config.image_size

        def generate():
            noise = tf.random.normal((num_images, size, size, 3))
            model.generate(noise, steps).numpy()

        return timed(generate)

    def batches(self, folder):
        """Return listing 8-2's data set over the pictures in `folder`, and its number of images."""
        config = self.config
        images = keras.utils.image_dataset_from_directory(
            folder,
            labels=None,
            image_size=(config.image_size, config.image_size),
            batch_size=None,
            shuffle=True,
            seed=42,
            interpolation="bilinear",
            verbose=False,
        )
        batches = (
            images.map(lambda image: tf.cast(image, "float32") / 255.0)
            .repeat(config.repeats)
            .batch(config.batch_size, drop_remainder=True)
        )
        count = len(list(Path(folder).iterdir())) * config.repeats
        return batches, count // config.batch_size * config.batch_size

    def pipeline(self, folder):
        """Return an epoch of `batches` as a case, and its number of images."""
        batches, count = self.batches(folder)

        def epoch():
            for _ in batches:
                pass

        return timed(epoch), count


if __name__ == "__main__":  # the process whose memory the benchmark measures
    from diffusion.training.config import get_preset

    Chapter(get_preset(sys.argv[1])).training(jit_compile=False)(int(sys.argv[2]))
