"""Select the images of a data set's splits."""

import hashlib
from dataclasses import replace
from pathlib import Path

import numpy as np

from diffusion.data.cache import cached, hash_of
from diffusion.data.folders import SPLITS


def select(flowers, splits: str | tuple[str, ...], cache_dir: Path):
    """Return the `Flowers` of these splits; scattered rows go to a cache entry of their own."""
    splits = (splits,) if isinstance(splits, str) else tuple(splits)
    present = [split for split in SPLITS if split in flowers.splits]
    for split in splits:
        if split not in present:
            choices = ", ".join(present) or f"none ({flowers.name} has no splits)"
            raise ValueError(f"unknown split {split!r}: choices are {choices}")
    if not splits:
        raise ValueError(f"splits is empty: choices are {', '.join(present) or 'none'}")
    rows = np.flatnonzero(np.isin(flowers.splits, splits))
    if len(rows) == rows[-1] - rows[0] + 1:
        images = flowers.images[rows[0] : rows[-1] + 1]
    else:
        images = _gather(flowers.images, rows, splits, cache_dir)
    total, rest = flowers.description.split(" ", 1)
    return replace(
        flowers,
        images=images,
        labels=flowers.labels[rows],
        splits=flowers.splits[rows],
        description=f"{len(images):,} of {total} {rest}, splits {', '.join(splits)}",
        fingerprint=hash_of([flowers.fingerprint, sorted(set(splits))])[:16],
    )


def _gather(images, rows, splits, cache_dir):
    """Copy scattered rows to a mapped file: together they may not fit in memory."""

    def fill(pixels):
        for target, row in enumerate(rows):
            pixels[target] = images[row]
        return {"count": len(rows)}

    source = Path(images.filename).parent.name  # it ends with the key of all these pixels
    entry = cache_dir / "-".join([source, *splits])
    key = [source, hashlib.sha256(rows.tobytes()).hexdigest()]
    return cached(entry, key, (len(rows), *images.shape[1:]), fill)[0]
