"""Judge a trained model: draw by each sampler, and compare with real pictures held out.

A row of the result is a dictionary: what was compared (sampler, steps, numbers of pictures) and
what `measure` found. The first row compares real pictures with real ones: nothing that is drawn
can be expected to do better.
"""

import time

import numpy as np

from diffusion.evaluation.distances import frechet_distance, kernel_distance, precision_and_recall
from diffusion.evaluation.encoder import encode
from diffusion.latents import initial_noise
from diffusion.samplers import SAMPLERS
from diffusion.support.validation import whole_number

FEWEST = 8  # so that each half of them has more than three others, for precision and recall
FLOOR = "real against real"


def measure(real, generated, batch_size=64, seed=0):
    """Compare two sets of features (M, D) and (N, D) by everything in `distances`.

    Returns a dictionary: kid and kid_error (its standard error) over all of them, kid_batches (the
    mean over batches of `batch_size` of each, in random order), fid, precision, recall, and how
    many there were (real, generated).
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


def real_against_real(real, seed=0):
    """Return the row that compares one random half of real features (M, D) with the other."""
    order = np.random.default_rng(seed).permutation(len(real))
    halves = real[order[: len(real) // 2]], real[order[len(real) // 2 :]]
    return {"sampler": FLOOR, "steps": None, "seconds": None, **measure(*halves, seed=seed)}


def evaluate_samplers(
    model,
    encoder,
    images,
    samplers=("ddim",),
    steps=(5, 10, 20),
    num_images=512,
    seed=0,
    batch_size=64,
    on_pictures=None,
):
    """Return the rows: real against real, then each sampler at each number of steps.

    model: a `DiffusionModel`. encoder: see `encoder`. images: real ones, of the model's
        size, uint8 or in [0, 1]. samplers: names in `samplers.SAMPLERS`. All draw `num_images`
        from the same noise, which `seed` decides, `batch_size` at a time.
    on_pictures: called with how many pictures are encoded or drawn, to show progress: in all
        len(images) + num_images * len(samplers) * len(steps).
    Raises ValueError for an unknown sampler, too few pictures, or pictures of another size.
    """
    check_request(samplers, steps, num_images)
    if len(images) < FEWEST:
        raise ValueError(f"{len(images)} real pictures are too few: {FEWEST} or more are needed")
    if images.shape[1:3] != (model.image_size, model.image_size):
        height, width = images.shape[1:3]
        raise ValueError(
            f"the model draws pictures of {model.image_size}x{model.image_size}, the real ones "
            f"are {height}x{width}: load them at the model's size"
        )
    real = encode(encoder, images, batch_size, on_pictures)
    rows = [real_against_real(real, seed)]
    for sampler in samplers:
        for count in steps:
            started = time.perf_counter()
            drawn = generate_images(
                model, sampler, count, num_images, seed, batch_size, on_pictures
            )
            seconds = time.perf_counter() - started
            found = measure(real, encode(encoder, drawn, batch_size), seed=seed)
            rows.append({"sampler": sampler, "steps": count, "seconds": seconds, **found})
    return rows


def check_request(samplers, steps, num_images):
    """Refuse what cannot be evaluated: ValueError, naming it and the choices."""
    for sampler in samplers:
        if sampler not in SAMPLERS:
            raise ValueError(f"no sampler {sampler!r}: choose from {', '.join(SAMPLERS)}")
    for count in steps:
        whole_number("steps", count, least=1)
    whole_number("num_images", num_images, least=FEWEST)


def generate_images(model, sampler, steps, num_images, seed=0, batch_size=64, on_pictures=None):
    """Draw pictures (num_images, S, S, 3) in [0, 1], `batch_size` at a time.

    The initial noise follows from the seed, and is the same for every sampler.
    """
    noise, drawn = initial_noise(num_images, model.image_size, seed), []
    for start in range(0, num_images, batch_size):
        part = noise[start : start + batch_size]
        pictures = model.generate(
            initial_noise=part,
            steps=steps,
            seed=seed + start,  # of fresh noise on the way: another for each batch
            sampler=SAMPLERS[sampler],
        )
        drawn.append(pictures)
        if on_pictures is not None:
            on_pictures(len(pictures))
    return np.concatenate(drawn)


def table(rows):
    """Lay rows out as text, a line each under a line of headings."""
    heads = ("sampler", "steps", "real", "drawn", "KID", "+-", "kid/batch", "FID", "prec.", "rec.")
    lines = [heads]
    for row in rows:
        numbers = [f"{row[name]:.5f}" for name in ("kid", "kid_error", "kid_batches")]
        shares = [f"{row[name]:.3f}" for name in ("precision", "recall")]
        counts = [str(row[name] or "-") for name in ("steps", "real", "generated")]
        lines.append((row["sampler"], *counts, *numbers, f"{row['fid']:.3f}", *shares))
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join(
            [cells[0].ljust(widths[0])]
            + [cell.rjust(width) for cell, width in zip(cells[1:], widths[1:], strict=True)]
        )
        for cells in lines
    )
