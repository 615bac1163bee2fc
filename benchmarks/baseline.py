"""The chapter taken literally, as the benchmark runs it: tests/reference.py in its best light.

Its training step is compiled whole, its noise and times drawn in it, and its batch already lies
in memory as float32. Sampling is the chapter's loop. The input pipeline is listing 8-2's.
"""

import importlib.util
import sys
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

ROOT = Path(__file__).resolve().parents[1]
from benchmarks.measures import timed  # noqa: E402


def load_reference():
    """Import tests/reference.py by its path."""
    spec = importlib.util.spec_from_file_location("reference", ROOT / "tests" / "reference.py")
    reference = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(reference)
    return reference


class Chapter:
    """The reference's cases, each as `measures.Ours` has them."""

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
        """Case: steps of the chapter's `train_step`. jit_compile: by XLA."""
        model, size = self.new_model(), self.config.image_size
        model.optimizer.build(model.network.trainable_weights)
        images = tf.random.uniform((self.config.batch_size, size, size, 3))

        @tf.function(jit_compile=jit_compile)
        def train_step(images):
            noises = tf.random.normal(images.shape)
            diffusion_times = tf.random.uniform((images.shape[0], 1, 1, 1))
            return model.train_step(images, noises, diffusion_times)

        def work(count):
            for _ in range(count):
                loss = train_step(images)
                float(loss)

        return timed(work)

    def sampling(self, num_images, steps):
        """Case: draw `num_images` in `steps` steps of the chapter's eager loop."""
        model, size = self.new_model(), self.config.image_size

        def work(count):
            for _ in range(count):
                noise = tf.random.normal((num_images, size, size, 3))
                model.generate(noise, steps).numpy()

        return timed(work)

    def batches(self, folder):
        """Listing 8-2's data set over the pictures in `folder`, and how many it serves."""
        config = self.config
        pictures = keras.utils.image_dataset_from_directory(
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
            pictures.map(lambda image: tf.cast(image, "float32") / 255.0)
            .repeat(config.repeats)
            .batch(config.batch_size, drop_remainder=True)
        )
        count = len(list(Path(folder).iterdir())) * config.repeats
        return batches, count // config.batch_size * config.batch_size

    def pipeline(self, folder):
        """An epoch of `batches` as a case, and how many pictures that serves."""
        batches, count = self.batches(folder)

        def work(epochs):
            for _ in range(epochs):
                for _ in batches:
                    pass

        return timed(work), count


if __name__ == "__main__":  # a process of its own, whose memory the benchmark measures
    from diffusion.training.config import get_preset

    Chapter(get_preset(sys.argv[1])).training(jit_compile=False)(int(sys.argv[2]))
