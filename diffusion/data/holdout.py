"""Which pictures are held out to judge by, and whether a model has seen them."""

import re

import numpy as np

HELD_OUT_EVERY = 4  # of pictures without splits, each fourth is held out


def hold_out(flowers, split="valid"):
    """Part the pictures of `Flowers` into those to learn from and those to judge by.

    split: which is held out where the data has splits; the others are to learn from. Where it has
        none, each fourth picture is held out, the same ones every time.
    Returns (rows to learn from, rows held out, what is held out in words).
    Raises ValueError for a split that the data has not.
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


def seen_in_training(record, flowers, split="valid"):
    """Return a line on whether the model of that record was trained on what is held out.

    record: a run's (`training.Run.record`): its "data" is the description of the `Flowers` that it
        was trained on, which names the splits unless it was all of them.
    """
    data = record["data"]
    about, _, splits = data.partition(", splits ")
    same = flowers.name in re.split("[ ,]+", about)
    if flowers.name == "painted":  # others are painted with another seed
        same = about == flowers.description
    if not same:
        return f"the model was trained on other pictures: {data}"
    if splits and split not in splits.split(", "):
        return f"the model was not trained on these pictures: {data}"
    return (
        f"the model was trained on these pictures too ({data}): no picture is withheld from it, "
        "only the noise that it draws from is new"
    )
