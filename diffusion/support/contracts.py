"""The four contracts of the library as types: Schedule, Network, Denoise, Sampler.

Every part is passed in, so you can write your own. Whatever can be called as one of these
protocols says will do; there is nothing to derive from. Images are normalised and channels last,
`(B, S, S, 3)`; rates are `(B, 1, 1, 1)` and stand beside them.
"""

from collections.abc import Callable
from typing import Any, Protocol, TypeAlias

Tensor: TypeAlias = Any  # a tensor of Keras's backend or a NumPy array; no one type covers both
Seed: TypeAlias = Any  # an int from 0 to 2**32 - 1, a `keras.random.SeedGenerator`, or None
# on_step(step, noisy_images, pred_noises, pred_images): called at each network evaluation
OnStep: TypeAlias = Callable[[int, Tensor, Tensor, Tensor], Any]


class Schedule(Protocol):
    """How much noise and how much signal an image holds at each diffusion time."""

    def __call__(self, diffusion_times: Tensor, /) -> tuple[Tensor, Tensor]:
        """Return (noise_rates, signal_rates), float32, each of the shape of `diffusion_times`.

        `diffusion_times` lie in [0, 1], in any shape; 0 is the image and 1 is noise. Each time is
        treated on its own, whatever else is in the batch. Rates are square roots of variances:
        `noise_rates**2 + signal_rates**2 == 1`. To be saved with a model, a schedule also needs
        `get_config` and `from_config`: derive it from `schedules.Schedule`.
        """


class Network(Protocol):
    """A functional Keras model of registered layers, for one image size; no `Lambda` layers."""

    inputs: list[Any]
    weights: list[Any]

    def __call__(self, inputs: dict[str, Tensor], training: bool = False) -> Tensor:
        """Map inputs by name to `(B, S, S, 3)`.

        Every network has `noisy_images (B, S, S, 3)` and `noise_variances (B, 1, 1, 1)`. One that
        is self-conditioned also has `earlier_images (B, S, S, 3)`, one that knows names has
        `labels (B,)`: whole numbers, the number of names meaning "no name". What the output means
        is up to the model's objective; by default it is the predicted noise.
        """


class Denoise(Protocol):
    """What a sampler calls at each step: a network and an objective behind one function."""

    def __call__(
        self, noisy_images: Tensor, noise_rates: Tensor, signal_rates: Tensor, /
    ) -> tuple[Tensor, Tensor]:
        """Return (pred_noises, pred_images), both of the shape of `noisy_images` (B, S, S, 3).

        The two fit together: `signal_rates * pred_images + noise_rates * pred_noises` is the noisy
        image. Wrap a `denoise` in another, as `thresholding.thresholded` does, and every sampler
        has it.
        """


class Sampler(Protocol):
    """From noise to images in a number of steps, by any method."""

    def __call__(
        self,
        denoise: Denoise,
        schedule: Schedule,
        noise: Tensor,
        steps: int,
        /,
        *args: Any,
        **options: Any,
    ) -> Tensor:
        """Return normalised images of the shape of `noise` (B, S, S, 3).

        `noise` is standard normal. `steps` is the number of network evaluations. Options differ
        from sampler to sampler; one named `seed` is filled in by `DiffusionModel.generate`.
        """


REQUIRED_INPUTS = ("noisy_images", "noise_variances")
INPUTS = (*REQUIRED_INPUTS, "earlier_images", "labels")


def named_inputs(network: Any) -> dict[str, Any]:
    """Return a functional model's symbolic inputs by the names it can be called with."""
    if isinstance(network.input, dict):
        return network.input
    return {tensor.name: tensor for tensor in network.inputs}


def check_network(network: Any, num_classes: int = 0) -> dict[str, Any]:
    """Return a network's symbolic inputs by name.

    num_classes: how many names the labels stand for.
    Raises ValueError for anything but a functional Keras model with inputs of the right names and
    labels that are whole numbers, or for labels without names and names without labels.
    """
    if not getattr(network, "inputs", None) or not hasattr(network, "input_shape"):
        raise ValueError(f"network must be a functional keras.Model, got {network!r}")
    inputs = named_inputs(network)
    if not set(REQUIRED_INPUTS) <= set(inputs) <= set(INPUTS):
        raise ValueError(
            f"network has the inputs {', '.join(inputs)}: name them with keras.Input(name=...), "
            f"{' and '.join(REQUIRED_INPUTS)}, and, where it has them, {' and '.join(INPUTS[2:])}"
        )
    if "labels" in inputs and (inputs["labels"].ndim, inputs["labels"].dtype) != (1, "int32"):
        raise ValueError(
            f"network has labels {inputs['labels'].dtype} {inputs['labels'].shape}: make them "
            'keras.Input((), dtype="int32", name="labels")'
        )
    if "labels" in inputs and not num_classes:
        raise ValueError("network has the input labels: give the model their class_names")
    table = [layer for layer in network.layers if layer.name == "label_embedding"]
    if table and table[0].input_dim != num_classes + 1:
        raise ValueError(
            f"network has labels for {table[0].input_dim - 1} names, not for {num_classes}: build "
            f"it with num_classes={num_classes}"
        )
    if num_classes and "labels" not in inputs:
        raise ValueError(
            f"network has no input labels for {num_classes} class_names: build it with "
            f"num_classes={num_classes}, or give no class_names"
        )
    return inputs
