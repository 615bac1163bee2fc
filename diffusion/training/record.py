"""The record of a run, `run.json`: what was trained on what, how long, with which losses."""

import dataclasses
import json
import platform
import sys

import keras

from diffusion.support.precision import accelerators, choose_precision, cpu_cores
from diffusion.training.config import Config


def machine():
    """Name what this trains on: the accelerators, or the number of CPU cores."""
    if found := accelerators():
        return ", ".join(found)
    return f"{cpu_cores()} CPU cores"


def versions():
    """Name what this trains with: Keras, its backend, Python and the system."""
    backend = f"Keras {keras.__version__} on {keras.backend.backend()}"
    return f"{backend}, Python {platform.python_version()} on {sys.platform}"


def new_record(config, flowers):
    """Return the record of a run that has not begun."""
    return {
        "config": {**dataclasses.asdict(config), "widths": list(config.widths)},
        "data": flowers.description,
        "machine": machine(),
        "precision": choose_precision(config.precision),
        "versions": versions(),
        "steps": 0,
        "seconds": 0.0,
        "history": [],
    }


def loss_name(model):
    """The Keras name of the loss that a model was compiled with, however it was given."""
    loss = keras.losses.get(model.loss)
    return getattr(loss, "name", None) or getattr(loss, "__name__", None) or str(loss)


def steps_taken(model):
    """How many training steps a compiled model has taken in all: its optimizer counts them."""
    # int() alone does not take what a variable is under a distribution strategy.
    return int(keras.ops.convert_to_numpy(model.optimizer.iterations))


def as_today(config):
    """Return a recorded configuration with the fields that are newer than it, at their defaults."""
    fields = dataclasses.fields(Config)
    defaults = {f.name: f.default for f in fields if f.default is not dataclasses.MISSING}
    return {**defaults, **config}


def read_record(record_path, new, steps_done):
    """Read the record of a run to go on with.

    new: the record that a new run would have; config and data must be the same. steps_done: of the
    checkpoint; epochs recorded after it are dropped. Raises ValueError where something differs.
    """
    try:
        old = json.loads(record_path.read_text())
        trained_as, trained_on, history = as_today(old["config"]), old["data"], old["history"]
        history = [entry for entry in history if entry["steps"] <= steps_done]
        seconds = history[-1]["seconds"] if history else 0.0
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f"{record_path} cannot be read ({error}), so how the model was trained is not known: "
            "choose another folder (--output)"
        ) from error
    may_differ = set() if new["config"]["decay_learning_rate"] else {"epochs"}
    for field, value in new["config"].items():
        was = trained_as.get(field, value)
        if field not in may_differ and was != value:
            raise ValueError(
                f"{record_path.parent} was trained with {field}={was}, not {value}: "
                "use the same preset, or another folder (--output)"
            )
    if trained_on != new["data"]:
        raise ValueError(
            f"{record_path.parent} was trained on {trained_on}, not on {new['data']}: "
            "use the same data, or another folder (--output)"
        )
    old.update(history=history, steps=steps_done, seconds=seconds, config=new["config"])
    return old
