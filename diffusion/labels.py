"""Labels: what a network with names is told, and how names become numbers.

A model with `n` class names numbers them from 0; the number `n` means "no name". In training each
label is replaced by it now and then, so that one network learns the images of each name and those
of all names together; `guidance` needs both. Ho and Salimans 2022 (arXiv:2207.12598), section 3.2.
"""

import difflib
from collections.abc import Sequence
from typing import Any, TypeAlias

import keras
import numpy as np
from keras import ops

from diffusion.support.backend import replica
from diffusion.support.contracts import Tensor

# A name, a number, or a sequence of them, one for each image; None means no name
Labels: TypeAlias = Any
SUGGESTIONS = 3


def label_numbers(labels: Labels, class_names: Sequence[str], count: int | None = None):
    """Return labels as int32 numbers (count,), `len(class_names)` where there is no name.

    labels: a name, a number, or a sequence of them; one alone is meant for all images.
    count: of images; default the number of labels.
    Raises ValueError for a name or number that does not exist, and names the nearest ones; for
    another number of labels than images; where there are no names at all.
    """
    if not class_names:
        raise ValueError("this model has no names: it was trained without labels")
    alone = labels is None or isinstance(labels, (str, int, np.integer))
    several = [labels] if alone else list(np.asarray(labels, dtype=object).ravel())
    numbers = [_number(label, class_names) for label in several]
    if alone:
        numbers = numbers * (1 if count is None else count)
    if count is not None and len(numbers) != count:
        raise ValueError(f"{len(numbers)} labels for {count} images: give one, or one for each")
    return np.array(numbers, dtype="int32")


def _number(label, class_names):
    if label is None:
        return len(class_names)
    if isinstance(label, str):
        return _number_of_name(label, class_names)
    try:
        number = int(label)
    except (TypeError, ValueError):
        number = -1
    if isinstance(label, (bool, np.bool_)) or number != label or not 0 <= number < len(class_names):
        raise ValueError(
            f"no label {label!r}: choose a name, or a whole number from 0 to {len(class_names) - 1}"
        )
    return number


def _number_of_name(name, class_names):
    """Return the number of a name, whatever its case."""
    lower = [known.lower() for known in class_names]
    wanted = name.strip().lower()
    if wanted in lower:
        return lower.index(wanted)
    containing = [known for known in lower if wanted and wanted in known]
    nearest = [*containing, *difflib.get_close_matches(wanted, lower, SUGGESTIONS, 0.5)]
    nearest = list(dict.fromkeys(nearest))[:SUGGESTIONS]
    hint = f"did you mean {' or '.join(nearest)}?" if nearest else f"there are {len(lower)} names"
    raise ValueError(f"no flower named {name!r}: {hint}")


def dropped(labels: Tensor, probability: float, no_name: int, seed: Any) -> Tensor:
    """Return labels (B,), each replaced by `no_name` with a probability, drawn from `seed`.

    seed: a `keras.random.SeedGenerator`. Under `tf.distribute` each replica draws for the joint
    batch and uses its share.
    """
    number, replicas = replica()
    count = ops.shape(labels)[0]
    chances = keras.random.uniform((replicas * count,), seed=seed)
    mine = chances[number * count : (number + 1) * count]
    return ops.where(mine < probability, no_name, labels)


def named(batch: Tensor | dict[str, Tensor]) -> tuple[Tensor, Tensor]:
    """Return (images, labels) of a batch, which is a dictionary of both or images alone."""
    return (batch["images"], batch["labels"]) if isinstance(batch, dict) else (batch, None)
