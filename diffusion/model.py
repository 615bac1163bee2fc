"""The diffusion model: learns to see noise in pictures, and draws by taking it away.

It is handed a network (`unet.build_unet`) and a schedule (`schedules`), keeps a moving average of
the network's weights, and knows the mean and variance of the pictures. Pictures are float in
[0, 1] or uint8 outside; inside they are normalised, and every schedule, loss and average is
computed in float32.
"""

import functools
import inspect

import keras
import numpy as np
from keras import ops

from diffusion.backend import compiled, replica
from diffusion.samplers import ddim, thresholded


@keras.saving.register_keras_serializable(package="diffusion")
class DiffusionModel(keras.Model):
    """A denoising diffusion model. Listings 8-5 and 8-10 to 8-12.

    network: a functional Keras model of one size of picture,
        `network([noisy_images (B,S,S,3), noise_variances (B,1,1,1)]) -> (B,S,S,3)`.
    schedule: diffusion times in [0, 1] -> (noise_rates, signal_rates); a `schedules.Schedule`.
    ema: share of the moving average kept at each step.
    ema_warmup: keep only min(ema, (1 + n) / (10 + n)) at step n, so that the average forgets the
        random start of the weights within a short run. Off in the chapter.
    seed: where the training noise comes from; its state is saved with the model.

    Use it as a Keras model: `compile`, `adapt` to the pictures, `fit` on batches of them; then
    `generate`. Training moves `network`; `evaluate` and `generate` use `ema_network`.
    Raises ValueError for a network or schedule that could not be saved with the model.
    """

    def __init__(self, network, schedule, ema=0.999, ema_warmup=False, seed=0, **kwargs):
        super().__init__(**kwargs)
        if not isinstance(network, keras.Model) or not hasattr(network, "input_shape"):
            raise ValueError(f"network must be a functional keras.Model, got {network!r}")
        if not (hasattr(schedule, "get_config") and hasattr(schedule, "from_config")):
            raise ValueError(f"schedule must derive from schedules.Schedule, got {schedule!r}")
        self.network = network
        self.schedule = schedule
        self.ema = ema
        self.ema_warmup = ema_warmup
        self.seed = seed
        self.image_size = network.input_shape[0][1]
        self.normalizer = keras.layers.Normalization(name="normalizer", dtype="float32")
        self.normalizer.build((None, None, None, 3))
        # A clone draws random weights of its own: without the copy, the average would start, and
        # for a thousand steps remain, somewhere that the network never was.
        self.ema_network = keras.models.clone_model(network)
        self.ema_network.set_weights(network.get_weights())
        self.ema_network.trainable = False
        self.seed_generator = keras.random.SeedGenerator(seed)
        self.built = True  # all weights are there; Keras would otherwise wait for a first call

    def adapt(self, images):
        """Learn each colour's mean and variance from `images` (N, S, S, 3), uint8 or in [0, 1].

        Goes through them about a million pixels at a time: they need not fit into memory.
        """
        count, total, squares = 0, np.zeros(3), np.zeros(3)
        rows = max(1, 1_000_000 // (images.shape[1] * images.shape[2]))
        for start in range(0, len(images), rows):
            chunk = ops.convert_to_numpy(scale_pixels(images[start : start + rows]))
            chunk = chunk.reshape(-1, 3)
            count += len(chunk)
            total += np.einsum("nc->c", chunk, dtype="float64")
            squares += np.einsum("nc,nc->c", chunk, chunk, dtype="float64")
        mean = total / count
        variance = np.maximum(squares / count - mean**2, 0)
        self.normalizer.set_weights([mean, variance, np.array(0)])  # the third is not used
        self.normalizer.finalize_state()  # makes `mean` and `variance` of the weights

    def normalize(self, images):
        """Turn pictures, uint8 or float in [0, 1], into float32 of mean 0 and variance 1."""
        return self.normalizer(scale_pixels(images))

    def denormalize(self, images):
        """Turn normalised images (B, S, S, 3) back into pictures in [0, 1]; the rest is clipped."""
        images = self.normalizer.mean + images * ops.sqrt(self.normalizer.variance)
        return ops.clip(images, 0.0, 1.0)

    def draw(self, shape):
        """Draw what a training step needs: noises of `shape`, and times (B, 1, 1, 1) in [0, 1)."""
        number, replicas = replica()
        mine = slice(number * shape[0], (number + 1) * shape[0])
        noises = keras.random.normal((replicas * shape[0], *shape[1:]), seed=self.seed_generator)
        times_shape = (replicas * shape[0], 1, 1, 1)
        diffusion_times = keras.random.uniform(times_shape, seed=self.seed_generator)
        return noises[mine], diffusion_times[mine]

    def denoise(self, noisy_images, noise_rates, signal_rates, training=False):
        """Predict the noise in noisy images, and the images without it.

        noisy_images: (B, S, S, 3), normalised; rates: (B, 1, 1, 1), squares summing to 1.
        training: True asks the network that is being trained, False its moving average.
        Returns (pred_noises, pred_images), both (B, S, S, 3). Listing 8-5.
        """
        noisy_images = ops.convert_to_tensor(noisy_images, "float32")
        noise_variances = ops.convert_to_tensor(noise_rates, "float32") ** 2
        if training:
            pred_noises = self.network([noisy_images, noise_variances], training=True)
        else:
            pred_noises = self._compiled_ema_network(noisy_images, noise_variances)
        pred_images = (noisy_images - noise_rates * pred_noises) / signal_rates
        return pred_noises, pred_images

    @functools.cached_property
    def _compiled_ema_network(self):
        return compiled(self.ema_network, jit_compile=self.compiled and bool(self.jit_compile))

    def call(self, images, training=False):
        """Add noise to a batch of pictures and predict it: returns (noises, pred_noises).

        images: (B, S, S, 3), uint8 or float in [0, 1]. Each picture gets a time of its own.
        """
        images = self.normalize(images)
        noises, diffusion_times = self.draw(ops.shape(images))
        noise_rates, signal_rates = self.schedule(diffusion_times)
        noisy_images = signal_rates * images + noise_rates * noises
        pred_noises, _ = self.denoise(noisy_images, noise_rates, signal_rates, training)
        return noises, pred_noises

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        """Compare the noise with its prediction by the loss that the model was compiled with."""
        noises, pred_noises = y_pred
        return super().compute_loss(
            x=x, y=noises, y_pred=pred_noises, sample_weight=sample_weight, training=training
        )

    def train_step(self, *args):
        """Take Keras's own gradient step on a batch, then move the average. Listing 8-5."""
        if keras.backend.backend() != "jax":
            logs = super().train_step(*args)
            self.update_ema()
            return logs
        # On JAX a step is a function from state to state: the average is moved on the new one.
        logs, state = super().train_step(*args)
        variables = (
            self.trainable_variables,
            self.non_trainable_variables,
            self.optimizer.variables,
        )
        new_values = [
            pair
            for some_variables, values in zip(variables, state[:3], strict=True)
            for pair in zip(some_variables, values, strict=True)
        ]
        with keras.StatelessScope(state_mapping=new_values) as scope:
            self.update_ema()
        non_trainable = [scope.get_current_value(v) for v in self.non_trainable_variables]
        return logs, (state[0], non_trainable, *state[2:])

    def update_ema(self):
        """Move each weight of `ema_network` a little towards the network's."""
        kept = self.ema
        if self.ema_warmup:
            steps = ops.cast(self.optimizer.iterations, "float32")
            kept = ops.minimum(kept, (1 + steps) / (10 + steps))
        for weight, average in zip(self.network.weights, self.ema_network.weights, strict=True):
            average.assign(kept * average + (1 - kept) * weight)

    def reverse_diffusion(
        self, initial_noise, diffusion_steps=20, sampler=ddim, threshold=None, **options
    ):
        """Take the noise away, step by step: normalised images from noise (B, S, S, 3).

        sampler: any function of `samplers`' one shape; options go to it.
        threshold: keep predicted images to the range of pictures, but for this share of their
            pixels, in (0, 1]; see `samplers.thresholded`. None leaves them as they are.
        Listing 8-11.
        """
        denoise = self.denoise
        if threshold is not None:
            black, white = (
                (level - self.normalizer.mean) / ops.sqrt(self.normalizer.variance)
                for level in (0.0, 1.0)
            )
            denoise = thresholded(denoise, black, white, threshold)
        return sampler(denoise, self.schedule, initial_noise, diffusion_steps, **options)

    def generate(
        self,
        num_images=None,
        diffusion_steps=20,
        *,
        initial_noise=None,
        seed=None,
        sampler=ddim,
        **options,
    ):
        """Draw pictures: float32 (num_images, S, S, 3) in [0, 1], as a NumPy array.

        initial_noise: where to start, (B, S, S, 3); or leave it out, and `seed` draws it.
        seed: an int draws the same pictures every time; None others each time. It goes to the
            sampler too, if that takes one.
        sampler, options: a function of `samplers`' one shape, and what it takes (`eta`, ...), or
            `threshold` of `reverse_diffusion`.
        Listing 8-12.
        Raises ValueError unless one of num_images and initial_noise is given.
        """
        if (num_images is None) == (initial_noise is None):
            raise ValueError("generate needs either num_images or initial_noise")
        if initial_noise is None:
            shape = (num_images, self.image_size, self.image_size, 3)
            initial_noise = keras.random.normal(shape, seed=seed)
        if "seed" in inspect.signature(sampler).parameters:
            options["seed"] = seed
        images = self.reverse_diffusion(initial_noise, diffusion_steps, sampler, **options)
        return ops.convert_to_numpy(self.denormalize(images))

    def get_config(self):
        return {
            **super().get_config(),
            "network": keras.saving.serialize_keras_object(self.network),
            "schedule": keras.saving.serialize_keras_object(self.schedule),
            "ema": self.ema,
            "ema_warmup": self.ema_warmup,
            "seed": self.seed,
        }

    @classmethod
    def from_config(cls, config):
        for part in ("network", "schedule"):
            config[part] = keras.saving.deserialize_keras_object(config[part])
        return cls(**config)

    def save_own_variables(self, store):
        """Save the state of the random numbers too, which Keras leaves out."""
        super().save_own_variables(store)
        store["seed_generator_state"] = ops.convert_to_numpy(self.seed_generator.state)

    def load_own_variables(self, store):
        self.seed_generator.state.assign(store["seed_generator_state"])


def scale_pixels(images):
    """Turn uint8 pictures into float32 in [0, 1]; float ones are taken to be so already.

    Raises ValueError for whole numbers of another kind: nobody can tell what they mean.
    """
    dtype = keras.backend.standardize_dtype(images.dtype)
    if dtype != "uint8" and "float" not in dtype:
        raise ValueError(f"pictures must be uint8, or float in [0, 1], got {dtype}")
    images = ops.cast(images, "float32")
    return images / 255.0 if dtype == "uint8" else images
