"""Load `.keras` files with errors that people understand; shrink them to ship.

A `.keras` file is a zip archive: `config.json` describes the objects, `metadata.json` the Keras
version, and `model.weights.h5` holds the weights.
"""

import io
import json
import re
import zipfile
import zlib
from pathlib import Path
from typing import Any

JSON_PARTS = CONFIG, METADATA = "config.json", "metadata.json"
WEIGHTS = "model.weights.h5"
MOST_BYTES = 64 * 2**20  # of JSON; the course's own takes 0.1 MB, a metric's encoder a few
DEEPEST = 200  # nested levels of JSON; the course's own has 20
LOADING_ERRORS = (  # what Keras, h5py and zlib raise for damaged or unknown files
    ValueError,
    TypeError,
    LookupError,
    AttributeError,
    OSError,
    RuntimeError,
    EOFError,
    zipfile.BadZipFile,
    zlib.error,
)


def load_keras_file(path: Path | str, what: str, **options) -> Any:
    """Return `keras.saving.load_model(path, **options)`; safe mode stays on.

    what: what the file should be, such as "an encoder". Raises ValueError, in one line, where it
    is damaged or something else; where a class is missing, the line names it and its module.
    """
    import keras

    config = read_config(path)
    try:
        return keras.saving.load_model(path, **options)
    except LOADING_ERRORS as error:
        if missing := _missing_class(config):
            raise ValueError(f"{path} needs {missing}") from error
        raise ValueError(f"{path} is not {what}, or is damaged: {first_line(error)}") from error


def model_file(path: Path | str) -> Path:
    """Return the `.keras` file of a model: `path` itself, or the one in a run's folder.

    Raises FileNotFoundError where there is none.
    """
    path = Path(path)
    file = path / "model.keras" if path.is_dir() else path
    if not file.is_file():
        raise FileNotFoundError(f"no model at {file}: train one with scripts/train.py")
    return file


def record_file(path: Path | str) -> Path:
    """Return where the record of a model lies: in its run's folder, or beside its file."""
    path = Path(path)
    return path / "run.json" if path.is_dir() else path.with_suffix(".json")


def first_line(error: BaseException) -> str:
    """Return the first line of an error's message, or its type where it has none."""
    return (str(error).splitlines() or [""])[0] or type(error).__name__


def read_config(path: Path | str) -> dict:
    """Return the content of a `.keras` file's `config.json`.

    Raises ValueError where the file is no `.keras` file, is incomplete, or holds JSON too large or
    too deeply nested for a model: Keras would read it whatever its size.
    """
    path = Path(path)
    if path.suffix != ".keras":
        raise ValueError(f"{path} is not a .keras file: name one that ends in .keras")
    with open(path, "rb") as file:
        if file.read(2) != b"PK":
            raise ValueError(f"{path} is not a model, whatever its name: name one saved by Keras")
    try:
        with zipfile.ZipFile(path) as archive:
            archive.getinfo(WEIGHTS)
            config, _ = [_read_json(archive, name) for name in JSON_PARTS]
    except LOADING_ERRORS as error:
        raise ValueError(
            f"{path} is damaged or incomplete ({first_line(error)}): copy it again, or train again"
        ) from error
    return config


def _read_json(archive, name):
    with archive.open(name) as part:
        content = part.read(MOST_BYTES + 1)  # the size that the archive states may be a lie
    if len(content) > MOST_BYTES:
        raise ValueError(f"its {name} has more than {MOST_BYTES:,} bytes")
    depth = 0
    for token in re.finditer(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"|[][{}]', content, re.DOTALL):
        depth += {b"[": 1, b"{": 1, b"]": -1, b"}": -1}.get(token[0], 0)
        if depth > DEEPEST:
            raise ValueError(f"its {name} is nested more than {DEEPEST} deep")
    content = json.loads(content)
    if not isinstance(content, dict):
        raise ValueError(f"its {name} is no JSON object")
    return content


def _missing_class(node):
    """Describe the first object in a config that is not registered, and what to do; or None."""
    if isinstance(node, dict) and (found := _unregistered(node)):
        return found
    children = node.values() if isinstance(node, dict) else node if isinstance(node, list) else ()
    return next(filter(None, map(_missing_class, children)), None)


def _unregistered(node):
    import keras

    module, name = node.get("module") or "", node.get("class_name")
    registered = node.get("registered_name")
    if name == "function":
        name = registered = node.get("config")
        of_keras = any(hasattr(part, str(name)) for part in (keras.activations, keras.losses))
    else:
        of_keras = module.split(".")[0] == "keras"
    if of_keras or not isinstance(registered, str):
        return None
    if keras.saving.get_registered_object(registered) is not None:
        return None
    if module in ("", "__main__", "builtins"):  # where Keras does not record a module
        return f'{name} ("{registered}"): run the code that defines and registers it, then load'
    return f'the class {module}.{name} ("{registered}"): import {module} before loading'


def save_small(model: Any, path: Path | str, record: dict) -> None:
    """Write a Keras model to the `.keras` file `path`, shrunk, and its record beside it.

    Raises ValueError unless `path` ends in .keras, OSError if it cannot be written.
    """
    from diffusion.support.files import write_json, written_whole  # here: they need NumPy

    path = Path(path)
    if path.suffix != ".keras":
        raise ValueError(f"a model is saved as a .keras file, got {path}")
    with written_whole(path) as temporary:
        model.save(temporary)
        shrink(temporary)
    write_json(path.with_suffix(".json"), record)


def shrink(path: Path | str) -> None:
    """Rewrite a `.keras` file compressed, kernels in float16, and equal arrays stored once."""
    import h5py

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
        if not hasattr(item, "shape"):  # a group
            copied = target.require_group(name)
        else:
            values = item[()]
            if values.ndim > 1:  # biases and statistics are few, and keep their precision
                values = values.astype("float16")
            content = (values.shape, values.dtype, values.tobytes())
            if content in written:
                target[name] = written[content]
                return
            copied = written[content] = target.create_dataset(name, data=values)
        copied.attrs.update(item.attrs)

    source.visititems(copy)
    target.attrs.update(source.attrs)
