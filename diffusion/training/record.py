"""The record of a run, `run.json`: its configuration, data, duration and losses."""

import dataclasses
import itertools
import json
import platform
import sys
from pathlib import Path

from diffusion.support.precision import accelerators, choose_precision, cpu_cores
from diffusion.training.config import KINDS, Config, is_a

FIELDS = {
    "config": dict,
    "data": str,
    "machine": str,
    "steps": int,
    "seconds": float,
    "history": list,
    **{"precision": str, "versions": str, "loss": str, "fingerprint": str, "started_from": str},
}
NEWER_FIELDS = ("precision", "versions", "loss", "fingerprint", "started_from")
EPOCH_FIELDS = {"epoch": int, "steps": int, "seconds": float, "loss": float}


def machine() -> str:
    """Name the machine: its accelerators, or its number of CPU cores."""
    if found := accelerators():
        return ", ".join(found)
    return f"{cpu_cores()} CPU cores"


def versions() -> str:
    """Name the software: Keras, its backend, Python and the operating system."""
    import keras

    backend = f"Keras {keras.__version__} on {keras.backend.backend()}"
    return f"{backend}, Python {platform.python_version()} on {sys.platform}"


def new_record(config, flowers) -> dict:
    """Return the record of a run that has not begun."""
    record = {
        "config": {**dataclasses.asdict(config), "widths": list(config.widths)},
        "data": flowers.description,
        "machine": machine(),
        "precision": choose_precision(config.precision),
        "versions": versions(),
        "steps": 0,
        "seconds": 0.0,
        "history": [],
    }
    if fingerprint := getattr(flowers, "fingerprint", ""):
        record["fingerprint"] = fingerprint
    return record


def loss_name(model) -> str:
    """Return the Keras name of the loss that a model was compiled with, however it was given."""
    import keras

    loss = keras.losses.get(model.loss)
    return getattr(loss, "name", None) or getattr(loss, "__name__", None) or str(loss)


def steps_taken(model) -> int:
    """Return how many training steps a compiled model has taken; its optimizer counts them."""
    import keras

    # int() alone does not accept a variable under a distribution strategy.
    return int(keras.ops.convert_to_numpy(model.optimizer.iterations))


def with_defaults(config: dict) -> dict:
    """Fill fields missing from an older recorded configuration with their defaults."""
    fields = dataclasses.fields(Config)
    defaults = {f.name: f.default for f in fields if f.default is not dataclasses.MISSING}
    return {**defaults, **config}


def load_record(path: Path | str) -> dict:
    """Read a record and check that every field is there and has its type.

    Fields that older records lack may be missing. Raises FileNotFoundError where there is no file,
    ValueError where it is damaged; both name the file and say what to do.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no record at {path}: name the folder of a run, or train anew")
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        _check(record)
    except (ValueError, RecursionError) as error:
        raise ValueError(
            f"{path} is damaged ({error}): correct it, or train anew in another folder"
        ) from error
    return record


def resume_record(folder: Path, old: dict, new: dict, steps: int) -> dict:
    """Return the record to continue with: `old`, cut back to the checkpoint.

    old: what `folder` holds. new: the record of a new run; configuration and data must agree.
    steps: of the checkpoint; later epochs are dropped. Raises ValueError for what differs.
    """
    trained_as = with_defaults(old["config"])
    may_differ = set() if new["config"]["decay_learning_rate"] else {"epochs"}
    for field, value in new["config"].items():
        was = trained_as.get(field, value)
        if field not in may_differ and was != value:
            raise ValueError(
                f"{folder} was trained with {field}={was}, not {value}: "
                "use the same preset, or another folder (--output)"
            )
    advice = "use the same data, or another folder (--output)"
    if old["data"] != new["data"]:
        raise ValueError(f"{folder} was trained on {old['data']}, not on {new['data']}: {advice}")
    prints = [record.get("fingerprint") for record in (old, new)]
    if all(prints) and prints[0] != prints[1]:
        raise ValueError(
            f"{folder} was trained on other pictures than these {new['data']} "
            f"(fingerprint {prints[0]}, not {prints[1]}): {advice}"
        )
    history = [entry for entry in old["history"] if entry["steps"] <= steps]
    seconds = history[-1]["seconds"] if history else 0.0
    identity = {name: new[name] for name in ("config", "fingerprint") if name in new}
    return {**old, **identity, "history": history, "steps": steps, "seconds": seconds}


def check_names(model, config, flowers) -> None:
    """Raise ValueError unless the model's names, if it has any, are those of the flowers."""
    if model.labelled != config.labels:
        has = "labels" if model.labelled else "no labels"
        raise ValueError(f"the model has {has}: use get_preset(..., labels={model.labelled})")
    pairs = itertools.zip_longest(model.class_names, flowers.class_names)
    different = [pair for pair in pairs if pair[0] != pair[1]]
    if model.labelled and different:
        name, other = different[0]
        raise ValueError(
            f"the model's names are not the flowers', {name!r} there is {other!r} here: use the "
            "same data, or another folder (--output)"
        )


def _check(record):
    _check_fields("the record", record, FIELDS)
    config, names = with_defaults(record["config"]), [f.name for f in dataclasses.fields(Config)]
    if missing := [name for name in names if name not in config]:
        raise ValueError(f"config has no {missing[0]}")
    Config(**{name: config[name] for name in names})  # raises for a type or a range
    for entry in record["history"]:
        _check_fields("an entry of history", entry, EPOCH_FIELDS)


def _check_fields(what, content, fields):
    if not is_a(content, dict):
        raise ValueError(f"{what} must be {KINDS[dict]}, got {content!r:.50}")
    for name, kind in fields.items():
        if name in content and not is_a(content[name], kind):
            raise ValueError(f"{name} must be {KINDS[kind]}, got {content[name]!r:.50}")
        if name not in content and name not in NEWER_FIELDS:
            raise ValueError(f"{what} has no {name}")
