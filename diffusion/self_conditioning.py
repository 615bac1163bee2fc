"""Self-conditioning: show the network its own earlier estimate of the image.

Chen et al. 2022 (arXiv:2208.04202, "Analog Bits"), section 3.2 and algorithms 1 and 2. A sampler
asks the network about nearly the same picture again and again. A network with a third input is
shown what it said the last time, and need not begin anew. In training there is no last time, so on
half of the steps it is asked twice: the first answer, from which no gradient flows back, is what
it is shown for the second. On the other half it is shown zeros, as at the start of sampling.
"""

import keras
from keras import ops


def half_of_the_time(estimate, noisy_images, seed):
    """Return `estimate()`, without gradient, on half of the calls, and zeros on the others.

    estimate: a function that predicts images of the shape of `noisy_images` (B, S, S, 3); it is
        computed only where it is needed. seed: a `keras.random.SeedGenerator`, which decides.
    """
    return ops.cond(
        keras.random.uniform((), seed=seed) < 0.5,
        lambda: ops.stop_gradient(estimate()),
        lambda: ops.zeros_like(noisy_images),
    )


def remembering(denoise):
    """Return a `denoise` for one run of a sampler: it hands on the images that it last predicted.

    denoise: `denoise(noisy_images, noise_rates, signal_rates, earlier_images=...)`.
    """
    last = None

    def remembering_denoise(noisy_images, noise_rates, signal_rates):
        nonlocal last
        pred_noises, last = denoise(noisy_images, noise_rates, signal_rates, earlier_images=last)
        return pred_noises, last

    return remembering_denoise
