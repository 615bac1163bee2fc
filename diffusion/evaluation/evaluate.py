"""Evaluate a trained model: generate images by each sampler, compare them with held-out ones.

A row of the result is a dictionary: what was compared (sampler, steps, numbers of images) and what
`measure` found. The first row compares real images with real ones: no sampler can be expected to do
better.
"""

import time
from collections.abc import Callable, Sequence

import numpy as np

from diffusion.evaluation.distances import frechet_distance, kernel_distance, precision_and_recall
from diffusion.evaluation.encoder import Encoder, encode
from diffusion.latents import initial_noise
from diffusion.model import DiffusionModel
from diffusion.samplers import SAMPLERS
from diffusion.support.tables import lay_out
from diffusion.support.validation import whole_number

FEWEST = 8  # images: each half of them must have more than three, for precision and recall
FLOOR = "real against real"


def measure(real: np.ndarray, generated: np.ndarray, batch_size: int = 64, seed: int = 0) -> dict:
    """Compare two sets of features (M, D) and (N, D) by every measure in `distances`.

    Returns a dictionary: kid over all of them and its standard error kid_error, kid_batches (the
    mean over random batches of `batch_size`), fid, precision, recall, and the numbers of images,
    real and generated.
    """
    kid, kid_error = kernel_distance(real, generated)
    rng, count = np.random.default_rng(seed), min(len(real), len(generated))
    a, b = rng.permutation(real), rng.permutation(generated)
    starts = range(0, max(count - batch_size, 0) + 1, batch_size)
    batches = [slice(start, start + batch_size) for start in starts]
    estimates = [kernel_distance(a[rows], b[rows], groups=1)[0] for rows in batches]
    precision, recall = precision_and_recall(real, generated)
    return {
        "real": len(real),
        "generated": len(generated),
        "kid": kid,
        "kid_error": kid_error,
        "kid_batches": float(np.mean(estimates)),
        "fid": frechet_distance(real, generated),
        "precision": precision,
        "recall": recall,
    }


def real_against_real(real: np.ndarray, seed: int = 0) -> dict:
    """Return the row that compares a random half of real features (M, D) with the other half."""
    order = np.random.default_rng(seed).permutation(len(real))
    halves = real[order[: len(real) // 2]], real[order[len(real) // 2 :]]
    return {"sampler": FLOOR, "steps": None, "seconds": None, **measure(*halves, seed=seed)}


def evaluate_samplers(
    model: DiffusionModel,
    encoder: Encoder,
    images: np.ndarray,
    samplers: Sequence[str] = ("ddim",),
    steps: Sequence[int] = (5, 10, 20),
    num_images: int = 512,
    seed: int = 0,
    batch_size: int = 64,
    on_progress: Callable[[int], object] | None = None,
) -> list[dict]:
    """Return the rows: real against real, then each sampler at each number of steps.

    images: real ones at the model's resolution, uint8 or in [0, 1].
    samplers: names in `samplers.SAMPLERS`. Each generates `num_images`, `batch_size` at a time,
        from the same noise, which follows from `seed`.
    on_progress: a callback for the number of images encoded or generated since the last call; they
        add up to len(images) + num_images * len(samplers) * len(steps).
    Raises ValueError for an unknown sampler, too few images, or images of another size.
    """
    for sampler in samplers:
        if sampler not in SAMPLERS:
            raise ValueError(f"no sampler {sampler!r}: choose from {', '.join(SAMPLERS)}")
    for count in steps:
        whole_number("steps", count, least=1)
    whole_number("num_images", num_images, least=FEWEST)
    if len(images) < FEWEST:
        raise ValueError(f"{len(images)} real images are too few: at least {FEWEST} are needed")
    if images.shape[1:3] != (model.image_size, model.image_size):
        height, width = images.shape[1:3]
        raise ValueError(
            f"the model generates images of {model.image_size}x{model.image_size}, the real ones "
            f"are {height}x{width}: load them at the model's resolution"
        )
    real = encode(encoder, images, batch_size, on_progress)
    rows = [real_against_real(real, seed)]
    for sampler in samplers:
        for count in steps:
            started = time.perf_counter()
            generated = generate_images(
                model, sampler, count, num_images, seed, batch_size, on_progress
            )
            seconds = time.perf_counter() - started
            found = measure(real, encode(encoder, generated, batch_size), seed=seed)
            rows.append({"sampler": sampler, "steps": count, "seconds": seconds, **found})
    return rows


def generate_images(
    model: DiffusionModel,
    sampler: str,
    steps: int,
    num_images: int,
    seed: int = 0,
    batch_size: int = 64,
    on_progress: Callable[[int], object] | None = None,
) -> np.ndarray:
    """Generate images (num_images, S, S, 3) in [0, 1], `batch_size` at a time.

    The initial noise follows from the seed and is the same for every sampler.
    """
    noise, generated = initial_noise(num_images, model.image_size, seed), []
    for start in range(0, num_images, batch_size):
        images = model.generate(
            initial_noise=noise[start : start + batch_size],
            steps=steps,
            seed=(seed + start) % 2**32,  # a stochastic sampler's noise differs between batches
            sampler=SAMPLERS[sampler],
        )
        generated.append(images)
        if on_progress is not None:
            on_progress(len(images))
    return np.concatenate(generated)


def table(rows: list[dict]) -> str:
    """Lay out rows as text, one line each below a line of headings."""
    heads = ("sampler", "steps", "real", "drawn", "KID", "+-", "kid/batch", "FID", "prec.", "rec.")
    lines = [heads]
    for row in rows:
        numbers = [f"{row[name]:.5f}" for name in ("kid", "kid_error", "kid_batches")]
        shares = [f"{row[name]:.3f}" for name in ("precision", "recall")]
        counts = [str(row[name] or "-") for name in ("steps", "real", "generated")]
        lines.append((row["sampler"], *counts, *numbers, f"{row['fid']:.3f}", *shares))
    return "\n".join(lay_out(lines, right=range(1, len(heads))))
