"""Train a model, resume interrupted runs, export and load the result."""

from diffusion.support.lazy import lazy_names

__getattr__, __dir__, __all__ = lazy_names(
    __name__,
    {
        "config": ("Config", "PRESETS", "get_preset"),
        "building": ("build", "load_model", "resized"),
        "loop": ("Run", "default_folder", "train"),
        "callbacks": ("TrainingError",),
        "export": ("export_run", "inference_copy", "load_for_inference", "load_run"),
    },
)
