"""Self-conditioning: give the network its own previous estimate of the image.

Chen et al. 2022 (arXiv:2208.04202, "Analog Bits"), section 3.2 and algorithms 1 and 2. From one
sampling step to the next the noisy image hardly changes. A network with the input `earlier_images`
receives the image it predicted at the previous step, so it need not start from scratch. Training
has no previous step, so in half of the training steps the network is evaluated twice: the first
prediction, through which no gradient flows, becomes the input of the second evaluation. In the
other half that input is zero, as it is when sampling starts.
"""

from collections.abc import Callable

import keras
from keras import ops

from diffusion.support.contracts import Denoise, Tensor


def estimate_or_zeros(estimate: Callable[[], Tensor], noisy_images: Tensor, seed: Tensor) -> Tensor:
    """Return `estimate()` without its gradient on half of the calls, and zeros on the others.

    estimate: a function that predicts images of the shape of `noisy_images` (B, S, S, 3); it is
        evaluated only when needed. seed: the `keras.random.SeedGenerator` that decides.
    """
    return ops.cond(
        keras.random.uniform((), seed=seed) < 0.5,
        lambda: ops.stop_gradient(estimate()),
        lambda: ops.zeros_like(noisy_images),
    )


def self_conditioned(denoise: Callable[..., tuple[Tensor, Tensor]]) -> Denoise:
    """Return a `denoise`, for one run of a sampler, that passes its last predicted images on.

    denoise: `denoise(noisy_images, noise_rates, signal_rates, earlier_images=...)`.
    """
    last_images = None

    def self_conditioned_denoise(noisy_images, noise_rates, signal_rates):
        nonlocal last_images
        pred_noises, last_images = denoise(
            noisy_images, noise_rates, signal_rates, earlier_images=last_images
        )
        return pred_noises, last_images

    return self_conditioned_denoise
