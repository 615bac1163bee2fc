"""The hall where data and model meet: train, resume, keep the record.

The notebooks and `scripts/train.py` both come here, so that what a reader has seen in a cell is
what trains for hours. A run lives in a folder: `model.keras` (the newest checkpoint, and in the
end the model), `run.json` (its record), `losses.csv` (its loss curve), `samples/` and `logs/`
(TensorBoard).
"""

import contextlib
import dataclasses
import zlib
from pathlib import Path

import keras

from diffusion.data.batches import Batches, EpochFromFit, halve
from diffusion.model import DiffusionModel
from diffusion.support.files import folder_lock
from diffusion.support.paths import models_home
from diffusion.training import distribution
from diffusion.training.building import build, load_model, resized
from diffusion.training.callbacks import Checkpoint, GracefulStop, LossCurve, SampleGrid
from diffusion.training.record import (
    load_record,
    loss_name,
    new_record,
    resume_record,
    steps_taken,
)


@dataclasses.dataclass
class Run:
    """A model and how it came to be: `record` is what `run.json` holds."""

    model: DiffusionModel
    record: dict
    folder: Path
    interrupted: bool = False

    @property
    def losses(self):
        """The noise loss of each epoch, or of the part of one before or after a stop."""
        return [entry["loss"] for entry in self.record["history"]]

    @property
    def caption(self):
        """One line for under a figure: what data, how many steps, how long, on what."""
        record = self.record
        minutes = record["seconds"] / 60
        time = f"{minutes:.0f} min" if minutes >= 1 else f"{record['seconds']:.0f} s"
        return (
            f"preset {record['config']['name']} on {record['data']}: {record['steps']:,} steps of "
            f"{record['config']['batch_size']} pictures in {time} on {record['machine']}"
        )


def default_folder(config, flowers):
    """Return where a run of this preset on these flowers lives: `models/<preset>-<data>`."""
    return models_home() / f"{config.name}-{flowers.name}"


def train(
    config,
    flowers,
    folder=None,
    *,
    model=None,
    resume=False,
    max_steps=None,
    sample_every=1,
    tensorboard=False,
    callbacks=(),
    verbose=2,
):
    """Train a model on flowers, with a checkpoint after each epoch; return the `Run`.

    config: from `config.get_preset`; `config.epochs` epochs in all.
    flowers: from `data.load_flowers`, of `config.image_size`.
    folder: the run's folder; default `models/<preset>-<data>`.
    model: a compiled model of your own, with another network or schedule, say; default
        `build(config)`. It is used where there is no checkpoint to go on from, and keeps its
        statistics of the pictures if it has any.
    resume: go on from the folder's checkpoint if there is one. On a CPU the end is the same, to the
        bit, as if the run had never stopped. A finished run is only loaded.
    max_steps: end after so many steps in all, even within an epoch.
    sample_every: epochs between sample grids in `samples/`; 0 draws none.
    tensorboard: write losses and grids to `logs/` (needs TensorFlow).
    callbacks, verbose: as for `keras.Model.fit`.

    Within `distribution.start` all its devices train as one on the joint batch of
    `config.batch_size`; process 0 alone reads and writes the folder.

    Ctrl-C ends it in good order (`Run.interrupted`). Raises FileExistsError if the folder holds a
    model and `resume` is False, or another process trains in it, OSError if it cannot be written,
    ValueError if it was trained otherwise than is asked for now, and TrainingError if the loss is
    no longer finite.
    """
    folder = Path(folder) if folder is not None else default_folder(config, flowers)
    path, record_path = folder / "model.keras", folder / "run.json"
    total_steps = config.epochs * _steps_per_epoch(config, flowers)
    record = new_record(config, flowers)
    distribution.share(config.batch_size)  # raises, if it cannot be shared
    distribution.agree(lambda: _facts(record, flowers, max_steps, sample_every))
    with distribution.files_of_first(folder, path.name, record_path.name) as source:
        if (source / path.name).exists():
            if not resume:
                raise FileExistsError(
                    f"{path} exists: go on with it (--resume), or choose another folder (--output)"
                )
            old = load_record(source / record_path.name)
            keras.utils.set_random_seed(config.seed)  # what is loaded starts alike everywhere
            model = load_model(source)
            if not model.compiled:
                raise ValueError(
                    f"{path} holds no optimizer (it was made for shipping): it can draw, "
                    "not train on; choose another folder (--output)"
                )
            record = resume_record(folder, old, record, steps_taken(model))
        else:
            first_size = config.image_size // (2 if config.half_size_epochs else 1)
            model = model or build(config, total_steps, first_size)
            if not model.has_statistics:
                model.adapt(flowers.images)

    record["loss"] = loss_name(model)
    stop = GracefulStop(path, max_steps)
    extra = [*_keeping(folder, path, record_path, record, tensorboard), stop, *callbacks]
    if sample_every:
        logs = folder / "logs" if tensorboard else None
        steps = config.sampling_steps
        extra.append(SampleGrid(folder / "samples", sample_every, 10, steps, log_dir=logs))
    end = min(total_steps, max_steps or total_steps)
    if steps_taken(model) >= end:
        return Run(model, record, folder)
    with folder_lock(folder) if distribution.is_first() else contextlib.nullcontext(), stop:
        while steps_taken(model) < end and not stop.interrupted:
            model = _fit_part(model, config, flowers, extra, verbose)
    return Run(model, record, folder, steps_taken(model) < end)


def _keeping(folder, path, record_path, record, tensorboard):
    """The callbacks that write about the training; process 0 alone has them."""
    if not distribution.is_first():
        return []
    logs = folder / "logs"
    curve = LossCurve(folder / "losses.csv", log_dir=logs / "steps" if tensorboard else None)
    keeping = [curve, Checkpoint(path, record_path, record)]
    if tensorboard:
        keeping.append(keras.callbacks.TensorBoard(logs, write_graph=False))
    return keeping


def _facts(record, flowers, max_steps, sample_every):
    """What processes that train as one must have in common."""
    options = {"max_steps": max_steps, "sample_every": sample_every, "data": record["data"]}
    same = {name: record[name] for name in ("precision", "versions")}
    checksum = 0
    for start in range(0, len(flowers), 1000):
        checksum = zlib.crc32(flowers.images[start : start + 1000], checksum)
    return {**record["config"], **options, **same, "pictures of the checksum": checksum}


def _fit_part(model, config, flowers, callbacks, verbose):
    """Train on to the end of a part: of an epoch begun earlier, of the half-size epochs, of all."""
    done = steps_taken(model)
    epoch, batches_done = divmod(done, _steps_per_epoch(config, flowers))
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
    )
    last_epoch = config.half_size_epochs if halved else config.epochs
    model.fit(
        batches,
        initial_epoch=epoch,
        epochs=epoch + 1 if batches_done else last_epoch,
        shuffle=False,  # Batches shuffles, by seed and epoch
        callbacks=[EpochFromFit(batches), *callbacks],
        verbose=verbose if distribution.is_first() else 0,
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
