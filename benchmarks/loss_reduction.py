"""Does it matter that the book sums its loss over the pixels, where the library takes the mean?

Trains the chapter's model (tests/reference.py) both ways from the same weights, on the same
batches, noises and times, on painted flowers at 32x32, and prints the mean loss of the last 25
steps. Run with `python -m benchmarks.loss_reduction` on TensorFlow; some minutes a seed.
"""

import keras
import numpy as np
import tensorflow as tf

from benchmarks.baseline import load_reference
from diffusion.data import load_flowers
from scripts import command

SIZE, BATCH = 32, 64


def train(reduction, images, steps, seed):
    """Return the losses of `steps` steps; the seed decides weights, batches, noises and times."""
    reference, random = load_reference(), np.random.default_rng(seed)
    keras.utils.set_random_seed(seed)
    network = reference.build_unet(SIZE, (16, 32, 64, 128), 2, 16)
    mean, variance = images.mean(axis=(0, 1, 2)), images.var(axis=(0, 1, 2))
    model = reference.Reference(network, mean, variance, reduction)
    model.optimizer.build(network.trainable_weights)
    train_step, losses = tf.function(model.train_step), []
    for _ in range(steps):
        batch = images[random.integers(len(images), size=BATCH)]
        noises = random.normal(size=batch.shape).astype("float32")
        times = random.uniform(size=(BATCH, 1, 1, 1)).astype("float32")
        losses.append(float(train_step(batch, noises, times)))
    return losses


def main():
    parser = command.Parser(description=__doc__.splitlines()[0])
    parser.add_count("--steps", 300, "training steps")
    parser.add_count("--seeds", 3, "seeds to try")
    options = parser.parse_args()
    flowers = load_flowers("painted", SIZE, painted=2000, progress=False)
    images = (flowers.images / 255).astype("float32")
    for seed in range(options.seeds):
        ends = {
            reduction: np.mean(train(reduction, images, options.steps, seed)[-25:])
            for reduction in ("mean", "sum")
        }
        print(f"seed {seed}: mean {ends['mean']:.4f}, sum {ends['sum']:.4f}", flush=True)


if __name__ == "__main__":
    command.run(main)
