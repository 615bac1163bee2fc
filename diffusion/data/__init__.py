"""Find pictures, decode them once, hold some out, and serve the images in batches."""

from diffusion.support.lazy import lazy_names

__getattr__, __dir__, __all__ = lazy_names(
    __name__,
    {
        "flowers": ("Flowers", "load_flowers"),
        "photographs": ("read_image", "read_photograph", "read_mask"),
        "batches": ("Batches", "EpochFromFit", "halve"),
        "holdout": ("hold_out", "seen_in_training"),
        "painting": ("paint_flowers",),
        "species": ("SPECIES",),
        "download": ("download_oxford",),
    },
)
