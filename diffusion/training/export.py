"""A trained model made small enough to ship, and the one that ships with the course.

`models/flowers-64.keras` is an ordinary model file, for drawing and for starting from: no
optimizer, the moving average as both of its networks, kernels stored in half precision. Beside it
lies the record of the run that made it.
"""

import json
from pathlib import Path

import keras

from diffusion.model import DiffusionModel
from diffusion.support.files import write_json, written_whole
from diffusion.support.keras_files import shrink
from diffusion.support.paths import shipped
from diffusion.support.precision import choose_precision, in_float32
from diffusion.training.building import load_model
from diffusion.training.loop import Run

SHIPPED = shipped("flowers-64.keras")


def export_run(run, path):
    """Write a run's model to the `.keras` file `path`, as small as it gets, and its record beside.

    Raises ValueError unless `path` ends in .keras, OSError if it cannot be written.
    """
    path = Path(path)
    if path.suffix != ".keras":
        raise ValueError(f"a shipped model is a .keras file, got {path}")
    model = inference_copy(run.model)
    model.network.set_weights(model.ema_network.get_weights())
    with written_whole(path) as temporary:
        model.save(temporary)
        shrink(temporary)
    write_json(path.with_suffix(".json"), run.record)


def load_run(path=None):
    """Load a trained model and its record, to draw with: returns a `training.Run`.

    path: a run's folder, or a `.keras` file with its record beside it; default the shipped model.
    The network computes in float32 where this machine is slow at bfloat16.
    Raises FileNotFoundError if model or record is not there, ValueError if either is damaged.
    """
    path = Path(path or SHIPPED)
    record_path = path / "run.json" if path.is_dir() else path.with_suffix(".json")
    model = load_for_inference(path)
    if not record_path.is_file():
        raise FileNotFoundError(f"no record at {record_path}: name the folder of a run")
    try:
        record = json.loads(record_path.read_text())
    except ValueError as error:
        raise ValueError(f"{record_path} is not a record: {error}") from error
    return Run(model, record, path)


def load_for_inference(path):
    """Load a model; where this machine is slow at bfloat16, let it compute in float32.

    Raises FileNotFoundError and ValueError as `training.load_model` does.
    """
    model = load_model(path)
    if choose_precision("auto") == "float32":
        return inference_copy(model, in_float32(model.network))
    return model


def inference_copy(model, network=None):
    """Return a copy of the model without its optimizer.

    network: built like the model's, to take its place; the weights are copied. Default: the same.
    """
    serialized = keras.saving.serialize_keras_object(network or model.network)
    copy = DiffusionModel.from_config(model.get_config() | {"network": serialized})
    copy.set_weights(model.get_weights())
    copy.normalizer.finalize_state()
    return copy
