"""Loss curves: the noise loss step by step, as a run or TensorBoard has recorded it."""

import csv
import io
import json
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from diffusion.support.files import written_whole

STEPS_PER_PART = 25  # the most, but in old or foreign records


class Part(NamedTuple):
    """A piece of a loss curve: the mean `loss` of the `steps` steps up to and with `step`."""

    step: int
    steps: int
    image_size: int  # side of the pictures, in pixels; 0 where the record does not say
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


@dataclass(frozen=True)
class Curve:
    """A loss curve and what is known of the run: `about` is its `run.json`, or empty."""

    name: str
    parts: list
    about: dict

    def near(self, step):
        """The mean loss of the last quarter of the first `step` steps: those after 3/4 of them.

        None where the record does not reach so far, or is too coarse to tell.
        """
        first = step * 3 // 4
        inside = {
            part: steps
            for part in self.parts
            if (steps := min(part.step, step) - max(part.step - part.steps, first)) > 0
        }
        finest = max(step - first, STEPS_PER_PART)
        covered = sum(inside.values())
        if covered < 0.9 * (step - first) or any(part.steps > finest for part in inside):
            return None
        return sum(part.loss * steps for part, steps in inside.items()) / covered


def read_curve(path, steps_per_epoch=None):
    """Read the curve of a run's folder, of its `losses.csv`, or of a folder of TensorBoard logs.

    A run older than `losses.csv` has one part an epoch, from its `run.json`. A log that has only
    Keras's loss of each epoch needs `steps_per_epoch`, which it does not hold.
    Raises FileNotFoundError where there is no record, ValueError where it cannot be understood.
    """
    path = Path(path)
    folder = path.parent if path.name == "losses.csv" else path
    for run in (folder, folder.parent):
        if (run / "losses.csv").is_file() or (run / "run.json").is_file():
            return _read_run(run)
    if not list(folder.rglob("*tfevents*")):
        raise FileNotFoundError(
            f"no losses.csv, run.json or TensorBoard log in {path}: name a run's folder, such as "
            "models/quick-painted"
        )
    names = reversed(folder.resolve().parts)
    name = next(name for name in names if name not in ("logs", "steps", "train"))
    return Curve(name, _read_events(folder, steps_per_epoch), {})


def _read_run(folder):
    record = folder / "run.json"
    try:
        about = json.loads(record.read_text()) if record.is_file() else {}
        if (folder / "losses.csv").is_file():
            return Curve(folder.name, read_losses(folder / "losses.csv"), about)
        parts, done = [], 0
        for entry in about["history"]:
            parts.append(Part(entry["steps"], entry["steps"] - done, 0, entry["loss"]))
            done = entry["steps"]
    except (KeyError, TypeError, json.JSONDecodeError) as error:
        raise ValueError(f"{record} is no record of a run: {error!r}") from error
    return Curve(folder.name, parts, about)


def _read_events(folder, steps_per_epoch):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from tensorboard.util.tensor_util import make_ndarray

    per_epoch = []
    for place in sorted({file.parent for file in folder.rglob("*tfevents*")}):
        events = EventAccumulator(str(place), size_guidance={"scalars": 0, "tensors": 0})
        events.Reload()
        if "loss" in events.Tags()["scalars"]:  # ours, by step
            return _as_parts({event.step: event.value for event in events.Scalars("loss")})
        if "epoch_loss" in events.Tags()["tensors"] and place.name != "validation":  # Keras's
            per_epoch = per_epoch or events.Tensors("epoch_loss")
    if not per_epoch:
        raise ValueError(f"the TensorBoard logs in {folder} hold neither loss nor epoch_loss")
    if steps_per_epoch is None:
        raise ValueError(
            f"the TensorBoard logs in {folder} hold one loss an epoch: say how many steps an "
            "epoch has (--steps-per-epoch)"
        )
    losses = {event.step: float(make_ndarray(event.tensor_proto)) for event in per_epoch}
    return _as_parts({(epoch + 1) * steps_per_epoch: loss for epoch, loss in losses.items()})


def _as_parts(losses):
    """Parts from losses by step, each the mean of all steps since the one before."""
    steps = sorted(losses)
    before = [0, *steps[:-1]]
    return [Part(b, b - a, 0, losses[b]) for a, b in zip(before, steps, strict=True)]
