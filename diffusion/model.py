"""The diffusion model: learns to predict the noise in images, and generates by removing it.

It combines a network (`unet.build_unet`), a schedule (`schedules`) and an objective (`objectives`),
keeps an exponential moving average (EMA) of the network's weights, and knows the mean and variance
of the images. Images are uint8, or float in [0, 1], outside and normalised inside; every schedule,
loss and average is computed in float32.
"""

import functools
from collections.abc import Sequence
from typing import Any, Self

import keras
from keras import ops

from diffusion.generation import Generation
from diffusion.guidance import dropped
from diffusion.labels import named
from diffusion.objectives import NoiseObjective, Objective
from diffusion.self_conditioning import estimate_or_zeros
from diffusion.support.backend import changed_state, compiled, share_of_draws
from diffusion.support.contracts import Schedule, Tensor, check_network
from diffusion.support.normalization import NormalizedImages


@keras.saving.register_keras_serializable(package="diffusion")
class DiffusionModel(Generation, NormalizedImages, keras.Model):
    """A denoising diffusion model. Listings 8-5 and 8-10; `generation` has 8-11 and 8-12.

    network: a functional Keras model for one image size, called by the names of its inputs:
        `noisy_images (B,S,S,3)`, `noise_variances (B,1,1,1)`; it returns `(B,S,S,3)`. One with
        `earlier_images (B,S,S,3)` is self-conditioned (see `self_conditioning`), one with
        `labels (B,)` knows the images' names (see `labels`).
    schedule: diffusion times in [0, 1] -> (noise_rates, signal_rates); a `schedules.Schedule`.
    ema: share of the average that each step keeps.
    ema_warmup: keep only min(ema, (1 + n) / (10 + n)) at step n, so that a short run forgets the
        random initial weights. Not in the chapter.
    seed: of the training noise; the generator's state is saved with the model.
    objective: what the network predicts; an `objectives.Objective`, by default the noise.
    class_names: the names that labels stand for, if the network takes labels.
    label_dropout: share of labels withheld in training, so that the network learns images without
        names too.

    Use it as a Keras model: `compile`, `adapt` to the images, `fit` on batches of them, then
    `generate`. Training updates `network`; `evaluate` and `generate` use `ema_network`.
    Raises ValueError for a part that could not be saved with the model, or a network whose inputs
    have other names.
    """

    def __init__(
        self,
        network: keras.Model,
        schedule: Schedule,
        ema: float = 0.999,
        ema_warmup: bool = False,
        seed: int = 0,
        objective: Objective | None = None,
        class_names: Sequence[str] = (),
        label_dropout: float = 0.1,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        inputs = check_network(network, len(class_names))
        objective = objective or NoiseObjective()
        for name, part in (("schedule", schedule), ("objective", objective)):
            if not (hasattr(part, "get_config") and hasattr(part, "from_config")):
                kind = f"{name}s.{name.capitalize()}"
                raise ValueError(f"{name} must derive from {kind}, got {part!r}")
        self.network, self.schedule, self.objective = network, schedule, objective
        self.ema, self.ema_warmup, self.seed = ema, ema_warmup, seed
        self.class_names, self.label_dropout = tuple(class_names), label_dropout
        self.self_conditioned, self.labelled = "earlier_images" in inputs, "labels" in inputs
        self.image_size = inputs["noisy_images"].shape[1]
        self.normalizer = self.build_normalizer()
        # A clone has random weights of its own; the average must start from the network's.
        self.ema_network = keras.models.clone_model(network)
        self.ema_network.set_weights(network.get_weights())
        self.ema_network.trainable = False
        self.seed_generator = keras.random.SeedGenerator(seed)
        self.built = True  # all weights exist; Keras would otherwise wait for a first call

    def sample_noises_and_times(self, shape: tuple[int, ...]) -> tuple[Tensor, Tensor]:
        """Draw noises of `shape`, (B, S, S, 3), and times (B, 1, 1, 1) in [0, 1) for a step."""
        noises = share_of_draws(keras.random.normal, shape, self.seed_generator)
        times_shape = (shape[0], 1, 1, 1)
        diffusion_times = share_of_draws(keras.random.uniform, times_shape, self.seed_generator)
        return noises, diffusion_times

    def denoise(
        self,
        noisy_images: Tensor,
        noise_rates: Tensor,
        signal_rates: Tensor,
        training: bool = False,
        earlier_images: Tensor = None,
        labels: Tensor = None,
    ) -> tuple[Tensor, Tensor]:
        """Predict the noise in noisy images, and the images without it. Listing 8-5.

        noisy_images: (B, S, S, 3), normalised; rates: (B, 1, 1, 1), squares summing to 1.
        training: True evaluates the network being trained, False its moving average.
        earlier_images: the previous prediction for a self-conditioned network, like
            `noisy_images`; None for none yet. Other networks do not use it.
        labels: (B,), numbers of names, for a network with labels; None for no names.
        Returns (pred_noises, pred_images), both (B, S, S, 3).
        """
        noisy_images, noise_rates, signal_rates = (
            ops.convert_to_tensor(part, "float32")
            for part in (noisy_images, noise_rates, signal_rates)
        )
        inputs = self.network_inputs(noisy_images, noise_rates, earlier_images, labels)
        outputs = self.call_network(inputs, training)
        return self.objective.predictions(outputs, noisy_images, noise_rates, signal_rates)

    def network_inputs(
        self,
        noisy_images: Tensor,
        noise_rates: Tensor,
        earlier_images: Tensor = None,
        labels: Tensor = None,
    ) -> dict[str, Tensor]:
        """Return the network's inputs by name: noisy images, noise *variances*, and what it has."""
        inputs = {"noisy_images": noisy_images, "noise_variances": noise_rates**2}
        if self.self_conditioned:
            nothing = ops.zeros_like(noisy_images)
            inputs["earlier_images"] = nothing if earlier_images is None else earlier_images
        if self.labelled:
            no_names = ops.full(ops.shape(noisy_images)[:1], len(self.class_names), "int32")
            inputs["labels"] = no_names if labels is None else ops.cast(labels, "int32")
        return inputs

    def call_network(self, inputs: dict[str, Tensor], training: bool = False) -> Tensor:
        """Evaluate the network being trained, or its moving average."""
        if training:
            return self.network(inputs, training=True)
        return self._compiled_ema_network(inputs)

    @functools.cached_property
    def _compiled_ema_network(self):
        return compiled(self.ema_network, jit_compile=self.compiled and bool(self.jit_compile))

    def call(
        self, images: Tensor | dict[str, Tensor], training: bool = False
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """Add noise to a batch of images and evaluate the network: (targets, outputs, weights).

        images: (B, S, S, 3), uint8 or float in [0, 1]; with labels (B,), a dictionary of `images`
            and `labels`, as `data.Batches` serves it. Each image gets its own diffusion time.
        By default targets are noises and outputs predicted noises. Weights are the objective's,
        (B, 1, 1, 1), or None.
        """
        images, labels = named(images)
        images = self.normalize(images)
        noises, diffusion_times = self.sample_noises_and_times(ops.shape(images))
        noise_rates, signal_rates = self.schedule(diffusion_times)
        noisy_images = signal_rates * images + noise_rates * noises
        if training and self.labelled and labels is not None:
            no_name, seed = len(self.class_names), self.seed_generator
            labels = dropped(labels, self.label_dropout, no_name, seed)
        earlier_images = None
        if self.self_conditioned:
            given = noisy_images, noise_rates, signal_rates, training, labels
            estimate = functools.partial(self.first_estimate, *given)
            earlier_images = estimate_or_zeros(estimate, noisy_images, self.seed_generator)
        inputs = self.network_inputs(noisy_images, noise_rates, earlier_images, labels)
        targets = self.objective.target(images, noises, noise_rates, signal_rates)
        weights = self.objective.weights(noise_rates, signal_rates)
        return targets, self.call_network(inputs, training), weights

    def first_estimate(self, noisy_images, noise_rates, signal_rates, training, labels=None):
        """Predict images for self-conditioning without updating batch-normalization statistics."""
        inputs = self.network_inputs(noisy_images, noise_rates, labels=labels)
        outputs = self.network(inputs, training=False) if training else self.call_network(inputs)
        return self.objective.predictions(outputs, noisy_images, noise_rates, signal_rates)[1]

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        """Compare targets with outputs by the loss given to `compile`."""
        targets, outputs, weights = y_pred
        if weights is not None:
            sample_weight = ops.squeeze(weights, -1)  # (B, 1, 1), beside a loss of (B, S, S)
        return super().compute_loss(
            x=x, y=targets, y_pred=outputs, sample_weight=sample_weight, training=training
        )

    def train_step(self, *args):
        """Take Keras's own gradient step on a batch, then update the average. Listing 8-5."""
        if keras.backend.backend() != "jax":
            logs = super().train_step(*args)
            self.update_ema()
            return logs
        # On JAX a step maps state to state: the average is updated in the new one.
        logs, state = super().train_step(*args)
        return logs, changed_state(self, state, self.update_ema)

    def update_ema(self) -> None:
        """Move each weight of `ema_network` a little towards the network's."""
        kept = self.ema
        if self.ema_warmup:
            steps = ops.cast(self.optimizer.iterations, "float32")
            kept = ops.minimum(kept, (1 + steps) / (10 + steps))
        for weight, average in zip(self.network.weights, self.ema_network.weights, strict=True):
            average.assign(kept * average + (1 - kept) * weight)

    def get_config(self) -> dict[str, Any]:
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
            config["objective"] = objective  # the default is left out, as in the oldest files
        if self.labelled:
            names = list(self.class_names)
            config |= {"class_names": names, "label_dropout": self.label_dropout}
        return config

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Self:
        for part in ("network", "schedule", "objective"):
            if part in config:
                config[part] = keras.saving.deserialize_keras_object(config[part])
        return cls(**config)

    def save_own_variables(self, store):
        """Save the state of the random generator too, which Keras leaves out."""
        super().save_own_variables(store)
        store["seed_generator_state"] = ops.convert_to_numpy(self.seed_generator.state)

    def load_own_variables(self, store):
        self.seed_generator.state.assign(store["seed_generator_state"])
