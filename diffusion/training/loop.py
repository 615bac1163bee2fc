"""Train a model and resume interrupted runs.

The notebooks and `scripts/train.py` both call `train`, so what a reader sees in a cell is what
trains for hours. A run has a folder: `model.keras` (the newest checkpoint, and in the end the
model), `run.json` (its record), `losses.csv` (its loss curve), `samples/` and `logs/`
(TensorBoard).
"""

import contextlib
import dataclasses
import zlib
from collections.abc import Sequence
from pathlib import Path

import keras

from diffusion.data.batches import Batches, EpochFromFit, halve
from diffusion.model import DiffusionModel
from diffusion.support.files import folder_lock
from diffusion.support.paths import models_home
from diffusion.support.validation import whole_number
from diffusion.training import distribution
from diffusion.training.building import build, copy_weights, load_model, resized
from diffusion.training.callbacks import (
    Checkpoint,
    LossCurve,
    ProgressBar,
    SampleGrid,
    memory_errors,
)
from diffusion.training.config import Config
from diffusion.training.record import (
    check_names,
    load_record,
    loss_name,
    new_record,
    resume_record,
    steps_taken,
)
from diffusion.training.stopping import GracefulStop
from diffusion.training.tensorboard_logs import TensorBoardLogs

MODEL, RECORD = "model.keras", "run.json"


@dataclasses.dataclass
class Run:
    """A model and how it was trained.

    record: what `run.json` holds. interrupted: whether it was stopped from outside. signal: the
    number of the signal that stopped it, if one did.
    """

    model: DiffusionModel
    record: dict
    folder: Path
    interrupted: bool = False
    signal: int | None = None

    @property
    def losses(self) -> list[float]:
        """The loss of each epoch, or of the part of one before or after a stop."""
        return [entry["loss"] for entry in self.record["history"]]

    @property
    def caption(self) -> str:
        """One line for below a figure: on which data, how many steps, how long, on what."""
        record = self.record
        minutes = record["seconds"] / 60
        time = f"{minutes:.0f} min" if minutes >= 1 else f"{record['seconds']:.0f} s"
        return (
            f"preset {record['config']['name']} on {record['data']}: {record['steps']:,} steps of "
            f"{record['config']['batch_size']} pictures in {time} on {record['machine']}"
        )


def default_folder(config: Config, flowers) -> Path:
    """Return the folder of a run of this preset on these flowers: `models/<preset>-<data>`."""
    return models_home() / f"{config.name}-{flowers.name}"


def train(
    config: Config,
    flowers,
    folder: Path | str | None = None,
    *,
    model: DiffusionModel | None = None,
    start_from: Path | str | None = None,
    resume: bool = False,
    max_steps: int | None = None,
    sample_every: int = 1,
    tensorboard: bool = False,
    callbacks: Sequence[keras.callbacks.Callback] = (),
    verbose: int = 2,
) -> Run:
    """Train a model on flowers, with a checkpoint after each epoch; return the `Run`.

    config: from `get_preset`; it trains for `config.epochs` epochs in all.
    flowers: from `load_flowers`, of `config.image_size`.
    folder: the run's folder; default `models/<preset>-<data>`.
    model: your own compiled model, with another network or schedule, say; default `build(config)`.
        It is adapted to the images unless it has been; a checkpoint takes precedence. If it takes
        labels, its names must be those of the flowers.
    start_from: a run's folder or a `.keras` file: begin with the weights of that model, whose
        network and names must be the same, instead of random ones.
    resume: continue from the folder's checkpoint if there is one. On a CPU the result is the same,
        to the bit, as that of an uninterrupted run. A finished run is only loaded.
    max_steps: stop after so many steps in all, even within an epoch.
    sample_every: epochs between sample grids in `samples/`; 0 draws none.
    tensorboard: write losses and grids to `logs/` (needs TensorFlow).
    callbacks, verbose: as for `keras.Model.fit`.

    Within `distribution.start` all devices train as one on the joint batch of `config.batch_size`,
    and process 0 alone reads and writes the folder. Ctrl-C, SIGTERM and SIGHUP end the step, save,
    and return (`Run.signal`). Raises FileExistsError if the folder holds a model and `resume` is
    False, or another process trains in it; OSError if it cannot be written; ValueError if it was
    trained differently, or its record is damaged; TrainingError if the loss is no longer finite or
    memory runs out.
    """
    folder = Path(folder) if folder is not None else default_folder(config, flowers)
    total_steps = config.epochs * _steps_per_epoch(config, flowers)
    most = total_steps if max_steps is None else whole_number("max_steps", max_steps, least=1)
    end = min(total_steps, most)
    whole_number("sample_every", sample_every, least=0)
    record = new_record(config, flowers)
    distribution.share(config.batch_size)  # raises ValueError if it cannot be shared
    distribution.require_agreement(lambda: _facts(record, flowers, max_steps, sample_every))
    if start_from is not None:
        record["started_from"] = Path(start_from).name
        model = _prepared(model, config, flowers, total_steps, load_model(start_from))
    model, record = _starting_point(config, flowers, folder, model, record, total_steps, resume)
    steps = steps_taken(model)
    if steps >= end:
        return Run(model, record, folder)
    stop = GracefulStop(folder / MODEL, max_steps)
    every_part = _callbacks(folder, record, config, stop, sample_every, tensorboard, callbacks)
    lock = folder_lock(folder) if distribution.is_main_process() else contextlib.nullcontext()
    with lock, stop, memory_errors(config, folder / MODEL):
        while steps < end and not stop.interrupted:
            with stop.abandoned_at_a_signal():  # until the first step: compiling it takes long
                model = _fit_part(model, steps, config, flowers, every_part, verbose)
                steps = steps_taken(model)  # within: an abandoned model may be half built
    return Run(model, record, folder, steps < end, stop.signal)


def _starting_point(config, flowers, folder, model, record, total_steps, resume):
    """Return model and record: the folder's, if it has a checkpoint, else new ones."""
    with distribution.main_process_files(folder, MODEL, RECORD) as source:
        if not (source / MODEL).exists():
            model = _prepared(model, config, flowers, total_steps)
        elif resume:
            model, record = _checkpoint(source, folder, config, record)
        else:
            raise FileExistsError(
                f"{folder / MODEL} exists: continue it (--resume), or choose another folder "
                "(--output)"
            )
    check_names(model, config, flowers)
    record["loss"] = loss_name(model)
    return model, record


def _prepared(model, config, flowers, total_steps, start=None):
    """Return the given model, or a new one, adapted to the images, or with the start's weights."""
    first_size = config.image_size // (2 if config.half_size_epochs else 1)
    model = model or build(config, total_steps, first_size, flowers.class_names)
    if start is not None:
        copy_weights(start, model)
    if not model.has_statistics:
        model.adapt(flowers.images)
    return model


def _checkpoint(source, folder, config, record):
    """Load the model and the record to continue with."""
    old = load_record(source / RECORD)
    keras.utils.set_random_seed(config.seed)  # so that all processes load alike
    model = load_model(source)
    if not model.compiled:
        raise ValueError(
            f"{folder / MODEL} has no optimizer (it was exported), so it can generate but not "
            "train: choose another folder (--output)"
        )
    return model, resume_record(folder, old, record, steps_taken(model))


def _callbacks(folder, record, config, stop, sample_every, tensorboard, others):
    """Return the callbacks of every part; process 0 alone writes files."""
    first = distribution.is_main_process()
    board = TensorBoardLogs(folder / "logs") if tensorboard and first else None
    callbacks = [stop]  # before the curve, which takes no loss that is not finite
    if first:
        callbacks.append(LossCurve(folder / "losses.csv", board=board))
        callbacks.append(Checkpoint(folder / MODEL, folder / RECORD, record))
    callbacks += [*([board] if board else []), *others]
    if sample_every:
        steps = config.sampling_steps
        callbacks.append(
            SampleGrid(folder / "samples", sample_every, steps=steps, board=board, stop=stop)
        )
    return [*callbacks, ProgressBar()]


def _facts(record, flowers, max_steps, sample_every):
    """Return what processes that train as one must have in common."""
    options = {"max_steps": max_steps, "sample_every": sample_every, "data": record["data"]}
    same = {name: record[name] for name in ("precision", "versions")}
    checksum = zlib.crc32("\n".join(flowers.class_names).encode(), zlib.crc32(flowers.labels))
    for start in range(0, len(flowers), 1000):
        checksum = zlib.crc32(flowers.images[start : start + 1000], checksum)
    return {**record["config"], **options, **same, "checksum of images and labels": checksum}


def _fit_part(model, steps, config, flowers, callbacks, verbose):
    """Train one part: the rest of an epoch, of the half-size epochs, or of all epochs.

    steps: taken so far. Returns the model, another one where the image size has changed.
    """
    epoch, batches_done = divmod(steps, _steps_per_epoch(config, flowers))
    halved = epoch < config.half_size_epochs
    size = config.image_size // 2 if halved else config.image_size
    if model.image_size != size:
        model = resized(model, config, size)
    batches = Batches(
        flowers.images,
        config.batch_size,
        repeats=config.repeats,
        flip=config.flip,
        seed=config.seed,
        transform=halve if halved else None,
        start=batches_done,
        share=distribution.share(config.batch_size),
        labels=flowers.labels if model.labelled else None,
    )
    last_epoch = config.half_size_epochs if halved else config.epochs
    model.fit(
        batches,
        initial_epoch=epoch,
        epochs=epoch + 1 if batches_done else last_epoch,
        shuffle=False,  # Batches shuffles, by seed and epoch
        callbacks=[EpochFromFit(batches), *callbacks],
        verbose=verbose if distribution.is_main_process() else 0,
    )
    return model


def _steps_per_epoch(config, flowers):
    steps = len(flowers) * config.repeats // config.batch_size
    if not steps:
        raise ValueError(
            f"{len(flowers)} pictures x {config.repeats} repeats do not fill one batch of "
            f"{config.batch_size}: add pictures, or lower batch_size"
        )
    return steps
