"""A trained model made small enough to ship, and the one that ships with the course.

`models/flowers-64.keras` is an ordinary model file, for drawing and for starting from: no
optimizer, the moving average as both of its networks, kernels stored in half precision. Beside it
lies the record of the run that made it.
"""

import io
import json
import zipfile
from pathlib import Path

import h5py
import keras

from diffusion.files import write_json, written_whole
from diffusion.model import DiffusionModel
from diffusion.precision import choose_precision, in_float32
from diffusion.training import Run, load_model

SHIPPED = Path(__file__).resolve().parents[1] / "models" / "flowers-64.keras"
WEIGHTS = "model.weights.h5"  # where a .keras file has them


def ship(run, path):
    """Write a run's model to the `.keras` file `path`, as small as it gets, and its record beside.

    Raises ValueError unless `path` ends in .keras, OSError if it cannot be written.
    """
    path = Path(path)
    if path.suffix != ".keras":
        raise ValueError(f"a shipped model is a .keras file, got {path}")
    model = copy_for_drawing(run.model)
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
    model = load_for_drawing(path)
    if not record_path.is_file():
        raise FileNotFoundError(f"no record at {record_path}: name the folder of a run")
    try:
        record = json.loads(record_path.read_text())
    except ValueError as error:
        raise ValueError(f"{record_path} is not a record: {error}") from error
    return Run(model, record, path)


def load_for_drawing(path):
    """Load a model; where this machine is slow at bfloat16, let it compute in float32.

    Raises FileNotFoundError and ValueError as `training.load_model` does.
    """
    model = load_model(path)
    if choose_precision("auto") == "float32":
        return copy_for_drawing(model, in_float32(model.network))
    return model


def copy_for_drawing(model, network=None):
    """Return a copy of the model without its optimizer.

    network: built like the model's, to take its place; the weights are copied. Default: the same.
    """
    serialized = keras.saving.serialize_keras_object(network or model.network)
    copy = DiffusionModel.from_config(model.get_config() | {"network": serialized})
    copy.set_weights(model.get_weights())
    copy.normalizer.finalize_state()
    return copy


def shrink(path):
    """Rewrite a `.keras` file: kernels in float16, what is there twice stored once, all packed."""
    with zipfile.ZipFile(path) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    small = io.BytesIO()
    with h5py.File(io.BytesIO(parts[WEIGHTS])) as source, h5py.File(small, "w") as target:
        _copy_in_half(source, target)
    parts[WEIGHTS] = small.getvalue()
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        for name, content in parts.items():
            archive.writestr(name, content)


def _copy_in_half(source, target):
    written = {}  # content -> the array in `target` that has it

    def copy(name, item):
        if isinstance(item, h5py.Group):
            copied = target.require_group(name)
        else:
            values = item[()]
            if values.ndim > 1:  # biases and statistics stay as they are: they are few
                values = values.astype("float16")
            content = (values.shape, values.dtype, values.tobytes())
            if content in written:
                target[name] = written[content]
                return
            copied = written[content] = target.create_dataset(name, data=values)
        copied.attrs.update(item.attrs)

    source.visititems(copy)
    target.attrs.update(source.attrs)
