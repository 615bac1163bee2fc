"""The hall where data and model meet: build, train, resume, reload.

The notebooks and `scripts/train.py` both come here, so that what a reader has seen in a cell is
what trains for hours. A run lives in a folder: `model.keras` (the newest checkpoint, and in the
end the model), `run.json` (its record), `samples/` and `logs/` (TensorBoard).
"""

import dataclasses
import json
import os
import platform
import sys
from pathlib import Path

import keras

from diffusion.batches import Batches, EpochFromFit
from diffusion.callbacks import Checkpoint, SampleGrid, StopInGoodOrder
from diffusion.model import DiffusionModel
from diffusion.precision import choose_precision, has_accelerator
from diffusion.schedules import SCHEDULES
from diffusion.unet import build_unet

MODELS = Path(__file__).resolve().parents[1] / "models"


@dataclasses.dataclass
class Run:
    """A model and how it came to be: `record` is what `run.json` holds."""

    model: DiffusionModel
    record: dict
    folder: Path
    interrupted: bool = False

    @property
    def losses(self):
        """The noise loss of each epoch."""
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


def build(config, total_steps):
    """Put a model together and compile it, as `config` says. Listing 8-10.

    total_steps: of the whole training, for a learning rate that is lowered along the way.
    The random start of the weights follows from `config.seed` (this sets Keras's global seed).
    Raises ValueError for a schedule or precision that does not exist.
    """
    if config.schedule not in SCHEDULES:
        choices = ", ".join(SCHEDULES)
        raise ValueError(f"no schedule {config.schedule!r}: choose one of {choices}")
    keras.utils.set_random_seed(config.seed)
    network = build_unet(
        config.image_size,
        config.widths,
        config.block_depth,
        config.embedding_dims,
        dtype=choose_precision(config.precision),
    )
    model = DiffusionModel(
        network, SCHEDULES[config.schedule](), config.ema, config.ema_warmup, seed=config.seed
    )
    learning_rate = config.learning_rate
    if config.decay_learning_rate:
        warmup = min(100, total_steps // 10)
        learning_rate = keras.optimizers.schedules.CosineDecay(
            0.0, total_steps - warmup, warmup_target=learning_rate, warmup_steps=warmup
        )
    model.compile(
        optimizer=keras.optimizers.AdamW(learning_rate, weight_decay=config.weight_decay),
        loss="mean_absolute_error",
        jit_compile=_compile_with_xla(),
    )
    return model


def load_model(path):
    """Load a model saved by this library, from a `.keras` file or a run's folder.

    Safe mode stays on: the file holds data, no code. Raises FileNotFoundError if it is not there,
    ValueError if it is no such model.
    """
    path = Path(path)
    file = path / "model.keras" if path.is_dir() else path
    if not file.is_file():
        raise FileNotFoundError(f"no model at {file}: train one with scripts/train.py")
    try:
        model = keras.saving.load_model(file)
    except (ValueError, TypeError, KeyError, OSError) as error:
        first_line = str(error).splitlines()[0]
        raise ValueError(f"{file} is not a model this library can load: {first_line}") from error
    if not isinstance(model, DiffusionModel):
        raise ValueError(f"{file} holds a {type(model).__name__}, not a DiffusionModel")
    model.jit_compile = _compile_with_xla()
    return model


def default_folder(config, flowers):
    """Return where a run of this preset on these flowers lives: `models/<preset>-<data>`."""
    return MODELS / f"{config.name}-{flowers.name}"


def train(
    config,
    flowers,
    folder=None,
    *,
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
    resume: go on from the folder's checkpoint if there is one. The end is the same, to the bit, as
        if the run had never stopped. A finished run is only loaded.
    max_steps: end after so many steps in all, even within an epoch.
    sample_every: epochs between sample grids in `samples/`; 0 draws none.
    tensorboard: write losses and grids to `logs/` (needs TensorFlow).
    callbacks, verbose: as for `keras.Model.fit`.

    Ctrl-C ends it in good order (`Run.interrupted`). Raises FileExistsError if the folder holds a
    model and `resume` is False, ValueError if it was trained otherwise than is asked for now, and
    TrainingError if the loss is no longer finite.
    """
    folder = Path(folder) if folder is not None else default_folder(config, flowers)
    path, record_path = folder / "model.keras", folder / "run.json"
    batches = _batches(config, flowers)
    record = _new_record(config, flowers)
    if path.exists():
        if not resume:
            raise FileExistsError(
                f"{path} exists: go on with it (--resume), or choose another folder (--output)"
            )
        model = load_model(path)
        record = _old_record(record_path, record, int(model.optimizer.iterations))
    else:
        model = build(config, config.epochs * len(batches))
        model.adapt(flowers.images)

    stop = StopInGoodOrder(path, max_steps)
    extra = [Checkpoint(path, record_path, record), stop, *callbacks]
    if sample_every:
        logs = folder / "logs" if tensorboard else None
        steps = config.sampling_steps
        extra.append(SampleGrid(folder / "samples", sample_every, 10, steps, log_dir=logs))
    if tensorboard:
        extra.append(keras.callbacks.TensorBoard(folder / "logs", write_graph=False))
    _fit(model, batches, config, flowers, max_steps, extra, stop, verbose)
    return Run(model, record, folder, stop.interrupted)


def _fit(model, batches, config, flowers, max_steps, callbacks, stop, verbose):
    """Train from where the model is, perhaps amid an epoch, to the end of the last epoch."""
    while not stop.interrupted:
        done = int(model.optimizer.iterations)
        epoch, batches_done = divmod(done, len(batches))
        if epoch >= config.epochs or (max_steps is not None and done >= max_steps):
            break
        part = _batches(config, flowers, start=batches_done)
        try:
            model.fit(
                part,
                initial_epoch=epoch,
                epochs=epoch + 1 if batches_done else config.epochs,
                shuffle=False,  # Batches shuffles, by seed and epoch
                callbacks=[EpochFromFit(part), *callbacks],
                verbose=verbose,
            )
        finally:
            stop.restore_handler()


def _batches(config, flowers, start=0):
    return Batches(
        flowers.images,
        config.batch_size,
        repeats=config.repeats,
        flip=config.flip,
        seed=config.seed,
        start=start,
    )


def _compile_with_xla():
    """XLA speeds a GPU up and, in TensorFlow, halves the speed of a CPU."""
    return "auto" if has_accelerator() or keras.backend.backend() != "tensorflow" else False


def _machine():
    if has_accelerator():
        return ", ".join(keras.distribution.list_devices())
    count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return f"{count} CPU cores"


def _new_record(config, flowers):
    return {
        "config": {**dataclasses.asdict(config), "widths": list(config.widths)},
        "data": flowers.description,
        "machine": _machine(),
        "precision": choose_precision(config.precision),
        "versions": f"Keras {keras.__version__} on {keras.backend.backend()}, "
        f"Python {platform.python_version()} on {sys.platform}",
        "steps": 0,
        "seconds": 0.0,
        "history": [],
    }


def _old_record(record_path, new, steps_done):
    """Read the record of a run to go on with; what the model has not seen is dropped."""
    try:
        old = json.loads(record_path.read_text())
    except (OSError, ValueError) as error:
        raise ValueError(
            f"{record_path} cannot be read ({error}), so how the model was trained is not known: "
            "choose another folder (--output)"
        ) from error
    may_differ = set() if new["config"]["decay_learning_rate"] else {"epochs"}
    for field, value in new["config"].items():
        if field not in may_differ and old["config"].get(field) != value:
            was = old["config"].get(field)
            raise ValueError(
                f"{record_path.parent} was trained with {field}={was}, not {value}: "
                "use the same preset, or another folder (--output)"
            )
    if old["data"] != new["data"]:
        raise ValueError(
            f"{record_path.parent} was trained on {old['data']}, not on {new['data']}: "
            "use the same data, or another folder (--output)"
        )
    history = [entry for entry in old["history"] if entry["steps"] <= steps_done]
    seconds = history[-1]["seconds"] if history else 0.0
    old.update(history=history, steps=steps_done, seconds=seconds, config=new["config"])
    return old
