"""What the network is asked to say, and how much its error counts at each amount of noise.

A noisy image is `signal x_0 + noise eps`. Who knows it and one of x_0, eps or the velocity
v = signal eps - noise x_0 knows all three, so a network can be trained to say any of them. An
objective says what the network's answer is compared with, and turns an answer into
`(pred_noises, pred_images)`, which is all that samplers ask for. Write your own: derive from
`Objective`, register it as below, and it is saved with the model.

A weighting is a function of the signal-to-noise ratio, SNR = (signal / noise)^2. It says how much
the *squared error of the noise* counts. The same mistake is another number in another objective:
an error of d in the noise is one of noise/signal d in the image and of d/signal in the velocity.
`Objective.weights` turns the one weight into the one that means the same for its own error. (For a
loss of absolute errors, the weights multiply these, as they are.)
"""

import keras
from keras import ops

from diffusion.support.validation import Configured

SMALLEST_RATE = 1e-5  # below the rates of any chain; to divide by less would leave only rounding


class Objective(Configured):
    """What all objectives share: weights, and how they are saved.

    weighting: a `Weighting`, or None: then the errors of this objective's own target count alike.
    Raises ValueError for a weighting that could not be saved with the model.
    """

    def __init__(self, weighting=None):
        if weighting is not None and not hasattr(weighting, "from_config"):
            raise ValueError(f"weighting must derive from Weighting, got {weighting!r}")
        self.weighting = weighting

    def target(self, images, noises, noise_rates, signal_rates):
        """Return what the network should say: (B, S, S, 3), from normalised images and noises."""
        raise NotImplementedError

    def predictions(self, outputs, noisy_images, noise_rates, signal_rates):
        """Return (pred_noises, pred_images), both (B, S, S, 3), from what the network says."""
        raise NotImplementedError

    def error_scale(self, snr):
        """Return the squared error of the target that one of 1 in the noise amounts to."""
        raise NotImplementedError

    def weights(self, noise_rates, signal_rates):
        """Return what to multiply the loss by, (B, 1, 1, 1); None for no weighting."""
        if self.weighting is None:
            return None
        snr = signal_to_noise(noise_rates, signal_rates)
        return self.weighting(snr) / self.error_scale(snr)

    def get_config(self):
        """Return the arguments that make an equal objective."""
        return {"weighting": keras.saving.serialize_keras_object(self.weighting)}

    @classmethod
    def from_config(cls, config):
        """Make the objective again from what `get_config` returned."""
        weighting = keras.saving.deserialize_keras_object(config.get("weighting"))
        return super().from_config({**config, "weighting": weighting})


@keras.saving.register_keras_serializable(package="diffusion")
class NoiseObjective(Objective):
    """The network says the noise, eps. Ho et al. 2020 (arXiv:2006.11239), eq. 14; listing 8-5.

    At little signal its image is poor: an error is multiplied by noise/signal.
    """

    def target(self, images, noises, noise_rates, signal_rates):
        return noises

    def predictions(self, outputs, noisy_images, noise_rates, signal_rates):
        return outputs, (noisy_images - noise_rates * outputs) / _divisor(signal_rates)

    def error_scale(self, snr):
        return ops.ones_like(snr)


@keras.saving.register_keras_serializable(package="diffusion")
class ImageObjective(Objective):
    """The network says the image, x_0. Salimans and Ho 2022 (arXiv:2202.00512), section 4.

    At little noise its noise is poor: an error is multiplied by signal/noise.
    """

    def target(self, images, noises, noise_rates, signal_rates):
        return images

    def predictions(self, outputs, noisy_images, noise_rates, signal_rates):
        return (noisy_images - signal_rates * outputs) / _divisor(noise_rates), outputs

    def error_scale(self, snr):
        return 1 / snr


@keras.saving.register_keras_serializable(package="diffusion")
class VelocityObjective(Objective):
    """The network says the velocity, v = signal eps - noise x_0. Same paper, appendix D.

    It is the change of the noisy image with the angle whose sine and cosine the rates are. At much
    noise it is the image (with its sign changed), at little noise the noise; nothing is divided by.
    """

    def target(self, images, noises, noise_rates, signal_rates):
        return signal_rates * noises - noise_rates * images

    def predictions(self, outputs, noisy_images, noise_rates, signal_rates):
        pred_noises = noise_rates * noisy_images + signal_rates * outputs
        return pred_noises, signal_rates * noisy_images - noise_rates * outputs

    def error_scale(self, snr):
        return (1 + snr) / snr


class Weighting(Configured):
    """What all weightings share: a function of SNR, saved with the objective."""

    def __call__(self, snr):
        """Return the weight of the squared error of the noise, of the shape of `snr`, all > 0."""
        raise NotImplementedError


@keras.saving.register_keras_serializable(package="diffusion")
class P2Weighting(Weighting):
    """Weight 1 / (offset + SNR)^power of the squared error of the noise: "perception prioritized".

    The steps next to the picture, whose noise nobody would see, count less. The paper's k and
    gamma are `offset` and `power` here. Choi et al. 2022 (arXiv:2204.00227), eq. 8, the weight
    being relative to the plain noise error (the paper's lambda).

    Raises ValueError unless offset is above 0 and power at least 0.
    """

    def __init__(self, offset=1.0, power=1.0):
        if offset <= 0 or power < 0:
            raise ValueError(
                f"p2 needs offset above 0 and power at least 0, got offset={offset}, power={power}"
            )
        self.offset, self.power = offset, power

    def __call__(self, snr):
        return (self.offset + snr) ** -self.power

    def get_config(self):
        return {"offset": self.offset, "power": self.power}


@keras.saving.register_keras_serializable(package="diffusion")
class MinSNRWeighting(Weighting):
    """Weight min(SNR, ceiling) of the squared error of the image, which is what it is meant for.

    For the noise that is min(SNR, ceiling) / SNR, for the velocity min(SNR, ceiling) / (SNR + 1).
    The steps next to the picture would else outweigh all others in the error of the image. The
    paper's gamma is `ceiling` here. Hang et al. 2023 (arXiv:2303.09556), section 3.4.

    Raises ValueError unless ceiling is above 0.
    """

    def __init__(self, ceiling=5.0):
        if ceiling <= 0:
            raise ValueError(f"min-SNR needs a ceiling above 0, got {ceiling}")
        self.ceiling = ceiling

    def __call__(self, snr):
        return ops.minimum(snr, self.ceiling) / snr

    def get_config(self):
        return {"ceiling": self.ceiling}


OBJECTIVES = {"noise": NoiseObjective, "image": ImageObjective, "velocity": VelocityObjective}
WEIGHTINGS = {"p2": P2Weighting, "min_snr": MinSNRWeighting}


def make_objective(name="noise", weighting="none"):
    """Make an objective by its name in OBJECTIVES, weighted by one of WEIGHTINGS or "none".

    Raises ValueError for a name that does not exist.
    """
    if name not in OBJECTIVES:
        raise ValueError(f"no objective {name!r}: choose one of {', '.join(OBJECTIVES)}")
    if weighting != "none" and weighting not in WEIGHTINGS:
        choices = ", ".join(["none", *WEIGHTINGS])
        raise ValueError(f"no loss weighting {weighting!r}: choose one of {choices}")
    return OBJECTIVES[name](None if weighting == "none" else WEIGHTINGS[weighting]())


def signal_to_noise(noise_rates, signal_rates):
    """Return (signal / noise)^2, finite and above zero even where a rate is zero."""
    return ops.square(_divisor(signal_rates) / _divisor(noise_rates))


def _divisor(rates):
    """The rates, kept from being so small that dividing by them leaves only rounding."""
    return ops.maximum(rates, SMALLEST_RATE)
