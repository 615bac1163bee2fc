"""Labels: which class an image should show, by name or by number.

A model with `n` class names numbers them from 0; the number `n` means "no name". Nothing here needs
Keras, so a command line can refuse a wrong name at once.
"""

import difflib
from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np

from diffusion.support.contracts import Tensor

# A name, a number, or a sequence of them, one for each image; None means no name
Labels: TypeAlias = Any
SUGGESTIONS = 3


def label_numbers(labels: Labels, class_names: Sequence[str], count: int | None = None):
    """Return labels as int32 numbers (count,), `len(class_names)` where there is no name.

    labels: a name, a number, or a sequence of them; one alone is meant for all images.
    count: of images; default the number of labels.
    Raises ValueError where there are no names, for a name or number that does not exist (naming
    the nearest ones), and for another number of labels than images.
    """
    if not class_names:
        raise ValueError("this model has no names: it was trained without labels")
    given = how_many(labels)
    several = [labels] * (count or 1) if given is None else labels
    if given is not None and count not in (None, given):
        raise ValueError(
            f"{given} labels for {count} images: give a list of {count}, or one label without list"
        )
    return np.array([_number(label, class_names) for label in several], dtype="int32")


def how_many(labels: Labels) -> int | None:
    """Return the number of labels in a sequence; None for a label alone, or none at all."""
    return len(labels) if np.ndim(labels) else None


def _number(label, class_names):
    if label is None:
        return len(class_names)
    if isinstance(label, str):
        return _number_of_name(label, class_names)
    try:
        number = int(label)
    except (TypeError, ValueError, OverflowError):
        number = -1
    if isinstance(label, (bool, np.bool_)) or number != label or not 0 <= number < len(class_names):
        raise ValueError(
            f"no label {label!r}: choose a name, or a whole number from 0 to {len(class_names) - 1}"
        )
    return number


def _number_of_name(name, class_names):
    """Return the number of a name, whatever its case."""
    if name in class_names:
        return list(class_names).index(name)
    lower = [known.lower() for known in class_names]
    wanted = name.strip().lower()
    if wanted in lower:
        return lower.index(wanted)
    containing = [known for known in lower if wanted and wanted in known]
    nearest = [*containing, *difflib.get_close_matches(wanted, lower, SUGGESTIONS, 0.5)]
    nearest = list(dict.fromkeys(nearest))[:SUGGESTIONS]
    hint = f"did you mean {' or '.join(nearest)}?" if nearest else f"there are {len(lower)} names"
    raise ValueError(f"no flower named {name!r}: {hint}")


def named(batch: Tensor | dict[str, Tensor]) -> tuple[Tensor, Tensor]:
    """Return (images, labels) of a batch, which is a dictionary of both or images alone."""
    return (batch["images"], batch["labels"]) if isinstance(batch, dict) else (batch, None)
