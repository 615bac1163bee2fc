"""Denoising diffusion models in Keras 3, in the smallest parts that still draw flowers.

The modules at the top of this package are the ideas. Read them in this order: `schedules`, `unet`,
`samplers`, `latents`, `objectives`, `generation`, `model`; beyond the chapter `ddpm`,
`self_conditioning`, `flow`, `thresholding`, `likelihoods`, `bound`, `labels`, `guidance`,
`noisy_classifier`, `modern_unet`, `tokens`, `transformer`, `inversion`, `editing`, `inpainting`.
`support.contracts` states how the parts fit together. Four packages surround them:

- `diffusion.data` loads, caches and batches images;
- `diffusion.training` trains a model and resumes interrupted runs;
- `diffusion.evaluation` compares generated images with real ones;
- `diffusion.support` holds what all of them share.

The names below load on first use: importing this package alone imports no framework.
"""

from diffusion.support.lazy import lazy_names

__getattr__, __dir__, __all__ = lazy_names(
    __name__,
    {
        "schedules": ("LinearSchedule", "CosineSchedule", "OffsetCosineSchedule"),
        "unet": ("build_unet",),
        "model": ("DiffusionModel",),
        "samplers": ("SAMPLERS", "ddim"),
        "latents": ("initial_noise", "slerp"),
        "data": ("load_flowers", "Batches"),
        "training": ("get_preset", "train", "load_model", "load_run"),
    },
)
