"""Samplers: initial noise -> pictures, by undoing a little noise at a time.

All have one shape, `sampler(denoise, schedule, noise, steps, **options) -> images`, where
`denoise(noisy_images, noise_rates, signal_rates) -> (pred_noises, pred_images)`. Noise and images
are normalised, `(B, S, S, 3)`. Write your own and pass it to `DiffusionModel.generate`; put it in
`SAMPLERS`, under a name of its own.
"""

import keras
from keras import ops


def ddim(denoise, schedule, noise, steps=20, eta=0.0, seed=None, on_step=None):
    """Sample by denoising diffusion implicit models (DDIM).

    denoise: called with noisy images and rates of shape `(B, 1, 1, 1)`; returns predicted noises
        and images, both of the images' shape.
    schedule: diffusion times in [0, 1] -> (noise_rates, signal_rates).
    noise: the start, `(B, S, S, 3)`, standard normal.
    steps: how many times the network is asked, 1 or more.
    eta: 0 draws the same picture from the same noise every time; 1 adds fresh noise at each step,
        as much as DDPM does.
    seed: int or `keras.random.SeedGenerator` for that fresh noise; ignored if eta is 0.
    on_step: if given, called as `on_step(step, noisy_images, pred_noises, pred_images)` at each
        step, to look on.

    Returns the image predicted at the last step, `(B, S, S, 3)`.
    Song et al. 2020 (arXiv:2010.02502), eq. 12 and 16; listing 8-11.
    Raises ValueError for steps below 1 or eta outside [0, 1].
    """
    if int(steps) != steps or steps < 1:
        raise ValueError(f"steps must be a whole number, 1 or more, got {steps}")
    if not 0 <= eta <= 1:
        raise ValueError(f"eta must be between 0 (DDIM) and 1 (DDPM), got {eta}")
    steps = int(steps)
    if eta > 0 and not isinstance(seed, keras.random.SeedGenerator):
        seed = keras.random.SeedGenerator(seed)
        seed.next()  # what this seed draws first may be the initial noise: not fresh any more

    noisy_images = ops.convert_to_tensor(noise, "float32")
    ones = ops.ones((ops.shape(noisy_images)[0], 1, 1, 1))
    for step in range(steps):
        noise_rates, signal_rates = schedule(ones * (1 - step / steps))
        next_noise_rates, next_signal_rates = schedule(ones * (1 - (step + 1) / steps))
        pred_noises, pred_images = denoise(noisy_images, noise_rates, signal_rates)
        if on_step is not None:
            on_step(step, noisy_images, pred_noises, pred_images)
        # Of the noise that is left after this step, sigma is drawn anew and the rest points back.
        if eta > 0:
            lost_signal = ops.sqrt(1 - (signal_rates / next_signal_rates) ** 2)
            sigmas = eta * next_noise_rates / noise_rates * lost_signal
            kept_noise_rates = ops.sqrt(next_noise_rates**2 - sigmas**2)
            noisy_images = next_signal_rates * pred_images + kept_noise_rates * pred_noises
            fresh_noises = keras.random.normal(ops.shape(noisy_images), seed=seed)
            noisy_images = noisy_images + sigmas * fresh_noises
        else:
            noisy_images = next_signal_rates * pred_images + next_noise_rates * pred_noises
    return pred_images


SAMPLERS = {"ddim": ddim}
