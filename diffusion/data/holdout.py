"""Hold images out for evaluation, and tell whether a model was trained on them."""

import re

import numpy as np

from diffusion.data.flowers import Flowers

HELD_OUT_EVERY = 4  # without splits, every fourth image is held out


def hold_out(flowers: Flowers, split: str = "valid") -> tuple[np.ndarray, np.ndarray, str]:
    """Divide the images of `Flowers` into those to train on and those held out.

    split: which split to hold out; the others are to train on. If the data has no splits, every
        fourth image is held out, always the same ones.
    Returns (rows to train on, held-out rows, what is held out in words).
    Raises ValueError for a split that the data does not have.
    """
    rows = np.arange(len(flowers))
    present = sorted(set(flowers.splits.tolist()) - {""})
    if not present:
        held = rows % HELD_OUT_EVERY == HELD_OUT_EVERY - 1
        words = f"each fourth picture of {flowers.name}"
    elif split in present:
        held = flowers.splits == split
        words = f"the {split} split of {flowers.name}"
    else:
        choices = ", ".join(present)
        raise ValueError(f"{flowers.name} has no split {split!r}: choose one of {choices}")
    return rows[~held], rows[held], f"{words}, {held.sum():,} pictures"


def seen_in_training(record: dict, flowers: Flowers, split: str = "valid") -> str:
    """Say in one line whether the model of a run was trained on the held-out images.

    record: the run's record; its "data" is the description of the `Flowers` that it was trained
        on, which names the splits unless it was all of them.
    """
    data = record["data"]
    about, _, splits = data.partition(", splits ")
    if " painted flowers" in about or flowers.name == "painted":
        if about != flowers.description:  # another seed paints other flowers
            return f"the model was trained on other pictures: {data}"
    elif flowers.name not in re.split("[ ,]+", about):  # the same data may have another name
        return (
            f"whether the model was trained on these pictures is not known: it was trained on "
            f"{data}, and these are {flowers.name}"
        )
    if splits and split not in splits.split(", "):
        return f"the model was not trained on these pictures: {data}"
    return (
        f"the model was trained on these pictures too ({data}): none is withheld from it, "
        "only the noise that it starts from is new"
    )
