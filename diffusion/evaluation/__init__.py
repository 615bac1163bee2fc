"""Compare generated images with real ones: distances, metrics, encoders, whole evaluations."""

from diffusion.support.lazy import lazy_names

__getattr__, __dir__, __all__ = lazy_names(
    __name__,
    {
        "distances": (
            "frechet_distance",
            "kernel_distance",
            "memorisation",
            "precision_and_recall",
        ),
        "metrics": ("FID", "KID"),
        "encoder": ("choose_encoder", "encode", "inception", "load_encoder"),
        "classifier": ("build_classifier", "save_classifier", "train_classifier"),
        "evaluate": ("evaluate_samplers", "generate_images"),
    },
)
