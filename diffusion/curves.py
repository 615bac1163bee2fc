"""Loss curves: the noise loss step by step, as a run leaves it in `losses.csv`."""

import csv
import io
from typing import NamedTuple

from diffusion.files import written_whole


class Part(NamedTuple):
    """A piece of a loss curve: the mean `loss` of the `steps` steps up to and with `step`."""

    step: int
    steps: int
    image_size: int  # side of the pictures, in pixels
    loss: float


def read_losses(path):
    """Read `losses.csv`: a list of `Part`. Raises OSError, or ValueError for what is none."""
    try:
        header, *rows = csv.reader(path.read_text().splitlines())
        if tuple(header) != Part._fields:
            raise ValueError(f"its columns are {', '.join(header)}, not {', '.join(Part._fields)}")
        return [Part(int(a), int(b), int(c), float(d)) for a, b, c, d in rows]
    except ValueError as error:
        raise ValueError(f"{path} is no record of losses: {error}") from error


def write_losses(path, parts):
    """Write `losses.csv`, whole or not at all."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(Part._fields)
    writer.writerows((*part[:3], f"{part.loss:.6f}") for part in parts)
    with written_whole(path) as temporary:
        temporary.write_text(text.getvalue())
