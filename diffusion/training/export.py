"""Export trained models, small enough to ship, and load them for inference.

An exported model such as `models/flowers-64.keras` is an ordinary model file: no optimizer, the
moving average as both of its networks, kernels stored in half precision. The record of its run lies
beside it.
"""

from pathlib import Path

import keras
import numpy as np

from diffusion.model import DiffusionModel
from diffusion.support.keras_files import model_file, record_file, save_small
from diffusion.support.paths import SHIPPED, SHIPPED_BY_NAME  # noqa: F401 (the second for others)
from diffusion.support.precision import choose_precision, in_float32
from diffusion.training.building import load_model
from diffusion.training.loop import Run
from diffusion.training.record import load_record


def export_run(run: Run, path: Path | str) -> None:
    """Write a run's model to the `.keras` file `path` in as few bytes as it takes, with its record.

    Raises ValueError unless `path` ends in .keras, OSError if it cannot be written.
    """
    model = inference_copy(run.model)
    model.network.set_weights(model.ema_network.get_weights())
    save_small(model, path, run.record)


def load_run(path: Path | str | None = None) -> Run:
    """Load a trained model for inference, and its record: a `training.Run`.

    path: a run's folder, or a `.keras` file with its record beside it; default the shipped model.
    The network computes in float32 where this machine is slow at bfloat16.
    Raises FileNotFoundError where model or record is missing, ValueError where either is damaged.
    """
    path = Path(path or SHIPPED)
    model_file(path)
    record = load_record(record_file(path))
    return Run(load_for_inference(path), record, path)


def load_for_inference(path: Path | str) -> DiffusionModel:
    """Load a model to generate with; it computes in float32 where this machine is slow at bfloat16.

    Raises FileNotFoundError and ValueError as `load_model` does, and ValueError where weights are
    not finite: a diverged training leaves NaN.
    """
    model = load_model(path)
    if not all(np.isfinite(weight).all() for weight in model.get_weights()):
        raise ValueError(
            f"{path} has weights that are not finite, as a diverged training leaves them: train "
            "again with a lower learning rate"
        )
    if choose_precision("auto") == "float32":
        return inference_copy(model, in_float32(model.network))
    return model


def inference_copy(model: DiffusionModel, network: keras.Model | None = None) -> DiffusionModel:
    """Return a copy of the model without its optimizer.

    network: the architecture to copy the weights into, default the model's own.
    """
    serialized = keras.saving.serialize_keras_object(network or model.network)
    copy = DiffusionModel.from_config(model.get_config() | {"network": serialized})
    copy.set_weights(model.get_weights())
    copy.normalizer.finalize_state()
    return copy
