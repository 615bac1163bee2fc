"""What the network predicts, and how much its error counts at each noise level.

A noisy image is `signal x_0 + noise eps`. Given it, any one of x_0, eps and the velocity
v = signal eps - noise x_0 determines the other two, so a network can be trained to predict any of
them. An objective defines the target and turns the network's output into
`(pred_noises, pred_images)`, which is all that samplers need. To write your own, derive from
`Objective` and register the class as below; it is then saved with the model.

A weighting is a function of the signal-to-noise ratio, SNR = (signal / noise)^2: the weight of the
*squared error of the noise*. The same mistake has another size in another target: an error of d in
the noise is one of noise/signal d in the image and of d/signal in the velocity.
`Objective.weights` converts the weight to the objective's own target, so that its meaning stays.
(A loss of absolute errors is multiplied by the same weights, as they are.)
"""

from typing import Any, Self

import keras
from keras import ops

from diffusion.support.contracts import Tensor
from diffusion.support.validation import Configured

SMALLEST_RATE = 1e-5  # below the rates of any chain; dividing by less would only amplify rounding


class Objective(Configured):
    """Base class of the objectives: their weights, and how they are saved.

    weighting: a `Weighting`, or None to count all errors of the objective's own target alike.
    Raises ValueError for a weighting that could not be saved with the model.
    """

    def __init__(self, weighting: "Weighting | None" = None):
        if weighting is not None and not hasattr(weighting, "from_config"):
            raise ValueError(f"weighting must derive from Weighting, got {weighting!r}")
        self.weighting = weighting

    def target(
        self, images: Tensor, noises: Tensor, noise_rates: Tensor, signal_rates: Tensor
    ) -> Tensor:
        """Return what the network should predict, (B, S, S, 3); images are normalised."""
        raise NotImplementedError

    def predictions(
        self, outputs: Tensor, noisy_images: Tensor, noise_rates: Tensor, signal_rates: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Return (pred_noises, pred_images), both (B, S, S, 3), from the network's outputs."""
        raise NotImplementedError

    def error_scale(self, snr: Tensor) -> Tensor:
        """Return the squared error of the target that a noise error of 1 amounts to."""
        raise NotImplementedError

    def weights(self, noise_rates: Tensor, signal_rates: Tensor) -> Tensor | None:
        """Return the weights of the loss, (B, 1, 1, 1), or None without a weighting."""
        if self.weighting is None:
            return None
        snr = signal_to_noise(noise_rates, signal_rates)
        return self.weighting(snr) / self.error_scale(snr)

    def get_config(self) -> dict[str, Any]:
        """Return the arguments that make an equal objective."""
        return {"weighting": keras.saving.serialize_keras_object(self.weighting)}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Self:
        """Make the objective again from what `get_config` returned."""
        weighting = keras.saving.deserialize_keras_object(config.get("weighting"))
        return super().from_config({**config, "weighting": weighting})


@keras.saving.register_keras_serializable(package="diffusion")
class NoiseObjective(Objective):
    """Predict the noise, eps. Ho et al. 2020 (arXiv:2006.11239), eq. 14; listing 8-5.

    Where there is little signal the predicted image is poor: errors are multiplied by noise/signal.
    """

    def target(self, images, noises, noise_rates, signal_rates):
        return noises

    def predictions(self, outputs, noisy_images, noise_rates, signal_rates):
        # x_0 = (x_t - noise eps) / signal
        return outputs, (noisy_images - noise_rates * outputs) / _divisor(signal_rates)

    def error_scale(self, snr):
        return ops.ones_like(snr)


@keras.saving.register_keras_serializable(package="diffusion")
class ImageObjective(Objective):
    """Predict the image, x_0. Salimans and Ho 2022 (arXiv:2202.00512), section 4.

    Where there is little noise the predicted noise is poor: errors are multiplied by signal/noise.
    """

    def target(self, images, noises, noise_rates, signal_rates):
        return images

    def predictions(self, outputs, noisy_images, noise_rates, signal_rates):
        # eps = (x_t - signal x_0) / noise
        return (noisy_images - signal_rates * outputs) / _divisor(noise_rates), outputs

    def error_scale(self, snr):
        return 1 / snr


@keras.saving.register_keras_serializable(package="diffusion")
class VelocityObjective(Objective):
    """Predict the velocity, v = signal eps - noise x_0. Same paper, appendix D.

    It is the derivative of the noisy image with respect to the angle whose sine and cosine are the
    two rates. Near pure noise it is the negative image, near the image it is the noise; no division
    is needed.
    """

    def target(self, images, noises, noise_rates, signal_rates):
        return signal_rates * noises - noise_rates * images

    def predictions(self, outputs, noisy_images, noise_rates, signal_rates):
        # eps = noise x_t + signal v,  x_0 = signal x_t - noise v
        pred_noises = noise_rates * noisy_images + signal_rates * outputs
        return pred_noises, signal_rates * noisy_images - noise_rates * outputs

    def error_scale(self, snr):
        return (1 + snr) / snr


class Weighting(Configured):
    """Base class of the weightings: functions of SNR, saved with the objective."""

    def __call__(self, snr: Tensor) -> Tensor:
        """Return the weight, above 0, of the squared error of the noise; of the shape of `snr`."""
        raise NotImplementedError


@keras.saving.register_keras_serializable(package="diffusion")
class P2Weighting(Weighting):
    """Weight 1 / (offset + SNR)^power of the squared noise error: "perception prioritized".

    Nearly clean images, whose noise nobody would see, count less. `offset` and `power` are the
    paper's k and gamma. Choi et al. 2022 (arXiv:2204.00227), eq. 8, the weight being relative to
    the plain noise error (the paper's lambda).

    Raises ValueError unless offset is above 0 and power at least 0.
    """

    def __init__(self, offset: float = 1.0, power: float = 1.0):
        if offset <= 0 or power < 0:
            raise ValueError(
                f"p2 needs offset above 0 and power at least 0, got offset={offset}, power={power}"
            )
        self.offset, self.power = offset, power

    def __call__(self, snr: Tensor) -> Tensor:
        return (self.offset + snr) ** -self.power

    def get_config(self) -> dict[str, Any]:
        return {"offset": self.offset, "power": self.power}


@keras.saving.register_keras_serializable(package="diffusion")
class MinSNRWeighting(Weighting):
    """Weight min(SNR, ceiling) of the squared image error, the target it was designed for.

    For the noise that is min(SNR, ceiling) / SNR, for the velocity min(SNR, ceiling) / (SNR + 1).
    Without it nearly clean images would outweigh all others in the error of the image. `ceiling`
    is the paper's gamma. Hang et al. 2023 (arXiv:2303.09556), section 3.4.

    Raises ValueError unless ceiling is above 0.
    """

    def __init__(self, ceiling: float = 5.0):
        if ceiling <= 0:
            raise ValueError(f"min-SNR needs a ceiling above 0, got {ceiling}")
        self.ceiling = ceiling

    def __call__(self, snr: Tensor) -> Tensor:
        return ops.minimum(snr, self.ceiling) / snr

    def get_config(self) -> dict[str, Any]:
        return {"ceiling": self.ceiling}


OBJECTIVES: dict[str, type[Objective]] = {
    "noise": NoiseObjective,
    "image": ImageObjective,
    "velocity": VelocityObjective,
}
WEIGHTINGS: dict[str, type[Weighting]] = {"p2": P2Weighting, "min_snr": MinSNRWeighting}


def make_objective(name: str = "noise", weighting: str = "none") -> Objective:
    """Make an objective by its name in OBJECTIVES, weighted by one of WEIGHTINGS or "none".

    Raises ValueError for a name that does not exist.
    """
    if name not in OBJECTIVES:
        raise ValueError(f"no objective {name!r}: choose one of {', '.join(OBJECTIVES)}")
    if weighting != "none" and weighting not in WEIGHTINGS:
        choices = ", ".join(["none", *WEIGHTINGS])
        raise ValueError(f"no loss weighting {weighting!r}: choose one of {choices}")
    return OBJECTIVES[name](None if weighting == "none" else WEIGHTINGS[weighting]())


def signal_to_noise(noise_rates: Tensor, signal_rates: Tensor) -> Tensor:
    """Return SNR = (signal / noise)^2, finite and above zero even where a rate is zero."""
    return ops.square(_divisor(signal_rates) / _divisor(noise_rates))


def _divisor(rates):
    """Return the rates, bounded from below, so that dividing by them does not amplify rounding."""
    return ops.maximum(rates, SMALLEST_RATE)
