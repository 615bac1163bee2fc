"""The diffusion model: learns to see noise in pictures, and draws by taking it away.

It is handed a network (`unet.build_unet`), a schedule (`schedules`) and an objective
(`objectives`), keeps a moving average of the network's weights, and knows the mean and variance of
the pictures. Pictures are float in [0, 1] or uint8 outside; inside they are normalised, and every
schedule, loss and average is computed in float32.
"""

import functools
import inspect

import keras
import numpy as np
from keras import ops

from diffusion.objectives import NoiseObjective
from diffusion.samplers import ddim, thresholded
from diffusion.self_conditioning import half_of_the_time, remembering
from diffusion.support.backend import changed_state, compiled, replica
from diffusion.support.pixels import colour_statistics, scale_pixels


@keras.saving.register_keras_serializable(package="diffusion")
class DiffusionModel(keras.Model):
    """A denoising diffusion model. Listings 8-5 and 8-10 to 8-12.

    network: a functional Keras model of one size of picture,
        `network([noisy_images (B,S,S,3), noise_variances (B,1,1,1)]) -> (B,S,S,3)`. One with a
        third input, `earlier_images (B,S,S,3)`, is self-conditioned: it is shown its own earlier
        estimate of the image (Chen et al. 2022, arXiv:2208.04202, section 3.2).
    schedule: diffusion times in [0, 1] -> (noise_rates, signal_rates); a `schedules.Schedule`.
    objective: what the network says, and how its errors count; an `objectives.Objective`. Default:
        the noise, all errors alike.
    ema: share of the moving average kept at each step.
    ema_warmup: keep only min(ema, (1 + n) / (10 + n)) at step n, so that the average forgets the
        random start of the weights within a short run. Off in the chapter.
    seed: where the training noise comes from; its state is saved with the model.

    Use it as a Keras model: `compile`, `adapt` to the pictures, `fit` on batches of them; then
    `generate`. Training moves `network`; `evaluate` and `generate` use `ema_network`.
    Raises ValueError for a part that could not be saved with the model.
    """

    def __init__(
        self,
        network,
        schedule,
        ema=0.999,
        ema_warmup=False,
        seed=0,
        objective=None,
        **kwargs,
    ):
        super().__init__(**kwargs)
        if not isinstance(network, keras.Model) or not hasattr(network, "input_shape"):
            raise ValueError(f"network must be a functional keras.Model, got {network!r}")
        objective = objective or NoiseObjective()
        for name, part in (("schedule", schedule), ("objective", objective)):
            if not (hasattr(part, "get_config") and hasattr(part, "from_config")):
                kind = f"{name}s.{name.capitalize()}"
                raise ValueError(f"{name} must derive from {kind}, got {part!r}")
        self.network = network
        self.self_conditioned = len(network.inputs) == 3
        self.schedule = schedule
        self.objective = objective
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
        """Learn each colour's mean and variance from `images` (N, S, S, 3), uint8 or in [0, 1]."""
        self.set_statistics(*colour_statistics(images))

    def set_statistics(self, mean, variance):
        """Set the pictures' mean and variance, numbers or one for each colour, instead of `adapt`.

        0.5 and 0.25 turn pictures in [0, 1] into images in [-1, 1], as DDPM has them.
        """
        mean, variance = np.broadcast_to(mean, 3), np.broadcast_to(variance, 3)
        self.normalizer.set_weights([mean, variance, np.array(0)])  # the third is not used
        self.normalizer.finalize_state()  # makes `mean` and `variance` of the weights

    @property
    def has_statistics(self):
        """Whether `adapt` or `set_statistics` has been called."""
        mean, variance, _ = self.normalizer.get_weights()
        return (mean != 0).any() or (variance != 1).any()

    def normalize(self, images):
        """Turn pictures, uint8 or float in [0, 1], into float32 of mean 0 and variance 1."""
        return self.normalizer(scale_pixels(images))

    def denormalize(self, images):
        """Turn normalised images (B, S, S, 3) back into pictures in [0, 1]; the rest is clipped."""
        images = self.normalizer.mean + images * ops.sqrt(self.normalizer.variance)
        return ops.clip(images, 0.0, 1.0)

    def sample_noises_and_times(self, shape):
        """Draw what a training step needs: noises of `shape`, and times (B, 1, 1, 1) in [0, 1)."""
        number, replicas = replica()
        mine = slice(number * shape[0], (number + 1) * shape[0])
        noises = keras.random.normal((replicas * shape[0], *shape[1:]), seed=self.seed_generator)
        times_shape = (replicas * shape[0], 1, 1, 1)
        diffusion_times = keras.random.uniform(times_shape, seed=self.seed_generator)
        return noises[mine], diffusion_times[mine]

    def denoise(self, noisy_images, noise_rates, signal_rates, training=False, earlier_images=None):
        """Predict the noise in noisy images, and the images without it.

        noisy_images: (B, S, S, 3), normalised; rates: (B, 1, 1, 1), squares summing to 1.
        training: True asks the network that is being trained, False its moving average.
        earlier_images: what a self-conditioned network has taken the image for so far, like
            `noisy_images`; None for nothing yet. Other networks are not shown it.
        Returns (pred_noises, pred_images), both (B, S, S, 3). Listing 8-5.
        """
        noisy_images, noise_rates, signal_rates = (
            ops.convert_to_tensor(part, "float32")
            for part in (noisy_images, noise_rates, signal_rates)
        )
        inputs = self.network_inputs(noisy_images, noise_rates, earlier_images)
        outputs = self.call_network(inputs, training)
        return self.objective.predictions(outputs, noisy_images, noise_rates, signal_rates)

    def network_inputs(self, noisy_images, noise_rates, earlier_images=None):
        """List what the network is shown: the noisy images, their noise *variance*, and so on."""
        inputs = [noisy_images, noise_rates**2]
        if self.self_conditioned:
            nothing = ops.zeros_like(noisy_images)
            inputs.append(nothing if earlier_images is None else earlier_images)
        return inputs

    def call_network(self, inputs, training=False):
        """Ask the network that is being trained, or its moving average."""
        if training:
            return self.network(inputs, training=True)
        return self._compiled_ema_network(*inputs)

    @functools.cached_property
    def _compiled_ema_network(self):
        return compiled(self.ema_network, jit_compile=self.compiled and bool(self.jit_compile))

    def call(self, images, training=False):
        """Add noise to a batch of pictures and ask the network: (targets, outputs, weights).

        images: (B, S, S, 3), uint8 or float in [0, 1]. Each picture gets a time of its own.
        Targets and outputs are noises and predicted noises, unless the objective is another; the
        weights (B, 1, 1, 1) are the objective's, or None.
        """
        images = self.normalize(images)
        noises, diffusion_times = self.sample_noises_and_times(ops.shape(images))
        noise_rates, signal_rates = self.schedule(diffusion_times)
        noisy_images = signal_rates * images + noise_rates * noises
        earlier_images = None
        if self.self_conditioned:
            rates = noise_rates, signal_rates
            estimate = functools.partial(self.first_estimate, noisy_images, *rates, training)
            earlier_images = half_of_the_time(estimate, noisy_images, self.seed_generator)
        inputs = self.network_inputs(noisy_images, noise_rates, earlier_images)
        targets = self.objective.target(images, noises, noise_rates, signal_rates)
        weights = self.objective.weights(noise_rates, signal_rates)
        return targets, self.call_network(inputs, training), weights

    def first_estimate(self, noisy_images, noise_rates, signal_rates, training):
        """Predict images for self-conditioning, without moving the network's running statistics."""
        inputs = self.network_inputs(noisy_images, noise_rates)
        outputs = self.network(inputs, training=False) if training else self.call_network(inputs)
        return self.objective.predictions(outputs, noisy_images, noise_rates, signal_rates)[1]

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        """Compare targets with outputs by the loss that the model was compiled with."""
        targets, outputs, weights = y_pred
        if weights is not None:
            sample_weight = ops.squeeze(weights, -1)  # one for each picture, as the loss has rows
        return super().compute_loss(
            x=x, y=targets, y_pred=outputs, sample_weight=sample_weight, training=training
        )

    def train_step(self, *args):
        """Take Keras's own gradient step on a batch, then move the average. Listing 8-5."""
        if keras.backend.backend() != "jax":
            logs = super().train_step(*args)
            self.update_ema()
            return logs
        # On JAX a step is a function from state to state: the average is moved on the new one.
        logs, state = super().train_step(*args)
        return logs, changed_state(self, state, self.update_ema)

    def update_ema(self):
        """Move each weight of `ema_network` a little towards the network's."""
        kept = self.ema
        if self.ema_warmup:
            steps = ops.cast(self.optimizer.iterations, "float32")
            kept = ops.minimum(kept, (1 + steps) / (10 + steps))
        for weight, average in zip(self.network.weights, self.ema_network.weights, strict=True):
            average.assign(kept * average + (1 - kept) * weight)

    def reverse_diffusion(self, initial_noise, steps=20, sampler=ddim, threshold=None, **options):
        """Take the noise away, step by step: normalised images from noise (B, S, S, 3).

        sampler: any function of `samplers`' one shape; options go to it.
        threshold: keep predicted images to the range of pictures, but for this share of their
            pixels, in (0, 1]; see `samplers.thresholded`. None leaves them as they are.
        Listing 8-11.
        """
        denoise = remembering(self.denoise) if self.self_conditioned else self.denoise
        if threshold is not None:
            black, white = (
                (level - self.normalizer.mean) / ops.sqrt(self.normalizer.variance)
                for level in (0.0, 1.0)
            )
            denoise = thresholded(denoise, black, white, threshold)
        return sampler(denoise, self.schedule, initial_noise, steps, **options)

    def generate(
        self,
        num_images=None,
        steps=20,
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
        images = self.reverse_diffusion(initial_noise, steps, sampler, **options)
        return ops.convert_to_numpy(self.denormalize(images))

    def get_config(self):
        config = {
            **super().get_config(),
            "network": keras.saving.serialize_keras_object(self.network),
            "schedule": keras.saving.serialize_keras_object(self.schedule),
            "ema": self.ema,
            "ema_warmup": self.ema_warmup,
            "seed": self.seed,
        }
        objective = keras.saving.serialize_keras_object(self.objective)
        if objective != keras.saving.serialize_keras_object(NoiseObjective()):
            config["objective"] = objective  # files without it are as old as the chapter
        return config

    @classmethod
    def from_config(cls, config):
        for part in ("network", "schedule", "objective"):
            if part in config:
                config[part] = keras.saving.deserialize_keras_object(config[part])
        return cls(**config)

    def save_own_variables(self, store):
        """Save the state of the random numbers too, which Keras leaves out."""
        super().save_own_variables(store)
        store["seed_generator_state"] = ops.convert_to_numpy(self.seed_generator.state)

    def load_own_variables(self, store):
        self.seed_generator.state.assign(store["seed_generator_state"])
