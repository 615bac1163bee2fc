"""Loss curves: the noise loss by training step, as a run or TensorBoard recorded it."""

import csv
import io
from dataclasses import dataclass
from math import isfinite
from pathlib import Path
from typing import NamedTuple

from diffusion.support.files import written_whole
from diffusion.training.record import load_record

STEPS_PER_PART = 25  # at most; older records and those of other programs may have more


class Part(NamedTuple):
    """A part of a loss curve: the mean `loss` of the last `steps` steps, `step` included."""

    step: int
    steps: int
    image_size: int  # side of the images, in pixels; 0 where unknown
    loss: float


def read_losses(path: Path | str) -> list[Part]:
    """Read `losses.csv`. Raises OSError, or ValueError where it is damaged."""
    try:
        text = Path(path).read_text(encoding="utf-8")
        header, *rows = csv.reader(text.splitlines(), strict=True)
        if tuple(header) != Part._fields:
            raise ValueError(f"its columns are {', '.join(header)}, not {', '.join(Part._fields)}")
        parts = [Part(int(a), int(b), int(c), float(d)) for a, b, c, d in rows]
        for part in parts:
            if not (0 < part.steps <= part.step and part.image_size >= 0 and isfinite(part.loss)):
                raise ValueError(f"a row is {tuple(part)}")
    except (ValueError, csv.Error) as error:
        raise ValueError(f"{path} is damaged ({error})") from error
    return parts


def write_losses(path: Path | str, parts: list[Part]) -> None:
    """Write `losses.csv`, whole or not at all."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(Part._fields)
    writer.writerows((*part[:3], f"{part.loss:.6f}") for part in parts)
    with written_whole(path) as temporary:
        temporary.write_text(text.getvalue())


@dataclass(frozen=True)
class Curve:
    """A loss curve and what is known of its run: `about` is its `run.json`, or empty."""

    name: str
    parts: list[Part]
    about: dict

    def near(self, step: int) -> float | None:
        """Return the mean loss of the last quarter of the first `step` steps.

        None where the record does not reach that far, or is too coarse.
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


def read_curve(path: Path | str, steps_per_epoch: int | None = None) -> Curve:
    """Read the curve of a run's folder, of its `losses.csv`, or of a folder of TensorBoard logs.

    A run older than `losses.csv` has one part per epoch, from its `run.json`. A log that has only
    Keras's loss of each epoch needs `steps_per_epoch`. Raises FileNotFoundError where there is no
    record, ValueError where it is damaged.
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
    record, losses = folder / "run.json", folder / "losses.csv"
    about = load_record(record) if record.is_file() else {}
    if losses.is_file():
        return Curve(folder.resolve().name, read_losses(losses), about)
    by_step = {entry["steps"]: entry["loss"] for entry in about["history"]}
    return Curve(folder.resolve().name, _as_parts(by_step), about)


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
            f"the TensorBoard logs in {folder} hold one loss per epoch: say how many steps an "
            "epoch has (--steps-per-epoch)"
        )
    losses = {event.step: float(make_ndarray(event.tensor_proto)) for event in per_epoch}
    return _as_parts({(epoch + 1) * steps_per_epoch: loss for epoch, loss in losses.items()})


def _as_parts(losses):
    """Make parts of losses by step, each the mean of all steps since the one before."""
    steps = sorted(losses)
    before = [0, *steps[:-1]]
    return [Part(b, b - a, 0, losses[b]) for a, b in zip(before, steps, strict=True)]
