"""Judge a trained model on held-out images: by its errors, and by the images it generates."""

import numpy as np
from keras import ops

from diffusion.evaluation.encoder import Encoder, encode
from diffusion.evaluation.evaluate import (
    draw_labels,
    generate_images,
    measure,
    real_against_real,
)
from diffusion.model import DiffusionModel

SAMPLER, STEPS = "dpm_solver", 10
BATCH = 128
MEASURES = ("kid", "precision", "recall")


class Judge:
    """Held-out images, and how a model is evaluated on them: the same for every model.

    images, labels: held-out ones, uint8 (N, S, S, 3) and whole numbers (N,).
    guidance: scales to generate with; a model without names generates at scale 1 alone.
    num_images: how many to generate at each scale; their labels are those of held-out images.
    """

    def __init__(
        self,
        images: np.ndarray,
        labels: np.ndarray,
        encoder: Encoder,
        guidance: tuple[float, ...],
        num_images: int,
    ):
        self.images, self.labels, self.encoder = images, labels, encoder
        self.guidance, self.num_images = guidance, num_images
        self.real = encode(encoder, images)

    def floor(self) -> dict:
        """Compare half of the held-out images with the other half: no model can do better."""
        row = real_against_real(self.real)
        return {name: row[name] for name in MEASURES}

    def scores(self, model: DiffusionModel) -> dict:
        """Return the errors, and kid, precision and recall by scale ("1", "1.5", ...)."""
        generated = {}
        for scale in self.guidance if model.labelled else {1.0} & set(self.guidance):
            found = measure(self.real, encode(self.encoder, self.generate(model, scale)))
            generated[f"{scale:g}"] = {name: found[name] for name in MEASURES}
        return {**self.errors(model), "guidance": generated}

    def errors(self, model: DiffusionModel) -> dict:
        """Return the moving average's errors on all held-out images, at evenly spaced times.

        noise_error: mean absolute error of the noise. velocity_error: mean squared error of the
        velocity. Both follow from `denoise`, so models with different objectives can be compared.
        """
        images = ops.convert_to_numpy(model.normalize(self.images))
        random, count = np.random.default_rng(1), len(images)
        noises = random.normal(size=images.shape).astype("float32")
        times = (random.permutation(count) + 0.5) / count  # images are sorted by name: mix them
        noise_rates, signal_rates = (
            ops.convert_to_numpy(rates)
            for rates in model.schedule(times.astype("float32").reshape(-1, 1, 1, 1))
        )
        absolute, squared = 0.0, 0.0
        for start in range(0, count, BATCH):
            rows = slice(start, start + BATCH)
            noise, signal, image, true = (
                part[rows] for part in (noise_rates, signal_rates, images, noises)
            )
            labels = {"labels": self.labels[rows]} if model.labelled else {}
            predicted = model.denoise(signal * image + noise * true, noise, signal, **labels)
            noise_errors, image_errors = (
                ops.convert_to_numpy(guess) - part
                for guess, part in zip(predicted, (true, image), strict=True)
            )
            absolute += np.abs(noise_errors).sum()
            squared += ((signal * noise_errors - noise * image_errors) ** 2).sum()
        size = noises.size
        return {"noise_error": float(absolute / size), "velocity_error": float(squared / size)}

    def generate(self, model: DiffusionModel, scale: float) -> np.ndarray:
        """Generate images (num_images, S, S, 3) from the same noise, with the same labels."""
        options = {}
        if model.labelled:
            labels = draw_labels(self.labels, self.num_images)
            options = {"labels": labels, "guidance": scale}
        return generate_images(model, SAMPLER, STEPS, self.num_images, 0, BATCH, **options)
