"""Put a model together as a configuration says, read one from its file, change its size."""

import zipfile
from pathlib import Path

import keras

from diffusion.model import DiffusionModel
from diffusion.objectives import make_objective
from diffusion.schedules import SCHEDULES
from diffusion.support.backend import compile_with_xla
from diffusion.support.precision import choose_precision
from diffusion.training.config import LOSSES
from diffusion.unet import build_unet


def build(config, total_steps, image_size=None):
    """Put a model together and compile it, as `config` says. Listing 8-10.

    total_steps: of the whole training, for a learning rate that is lowered along the way.
    image_size: default `config.image_size`.
    The random start of the weights follows from `config.seed` (this sets Keras's global seed).
    Raises ValueError for a schedule, objective, weighting, loss or precision that does not exist.
    """
    for name, choices in (("schedule", SCHEDULES), ("loss", LOSSES)):
        if (value := getattr(config, name)) not in choices:
            raise ValueError(f"no {name} {value!r}: choose one of {', '.join(choices)}")
    objective = make_objective(config.objective, config.loss_weighting)
    keras.utils.set_random_seed(config.seed)
    network = build_unet(
        image_size or config.image_size,
        config.widths,
        config.block_depth,
        config.embedding_dims,
        choose_precision(config.precision),
        config.self_conditioning,
    )
    schedule = SCHEDULES[config.schedule]()
    model = DiffusionModel(
        network, schedule, config.ema, config.ema_warmup, config.seed, objective=objective
    )
    learning_rate = config.learning_rate
    if config.decay_learning_rate:
        warmup = min(100, total_steps // 10)
        learning_rate = keras.optimizers.schedules.CosineDecay(
            0.0, total_steps - warmup, warmup_target=learning_rate, warmup_steps=warmup
        )
    model.compile(
        optimizer=keras.optimizers.AdamW(learning_rate, weight_decay=config.weight_decay),
        loss=config.loss,
        jit_compile=compile_with_xla(),
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
    except (ValueError, TypeError, KeyError, OSError, zipfile.BadZipFile) as error:
        first_line = (str(error).splitlines() or [type(error).__name__])[0]
        raise ValueError(f"{file} is not a model this library can load: {first_line}") from error
    if not isinstance(model, DiffusionModel):
        raise ValueError(f"{file} holds a {type(model).__name__}, not a DiffusionModel")
    model.jit_compile = compile_with_xla()
    return model


def resized(model, config, image_size):
    """Return the model for pictures of another size, with all that it has learnt and counted.

    The network is convolutional, so no weight depends on the size.
    """
    other = build(config, 1, image_size)
    other.schedule, other.objective = model.schedule, model.objective
    optimizer = type(model.optimizer).from_config(model.optimizer.get_config())
    other.compile(optimizer=optimizer, loss=model.loss, jit_compile=model.jit_compile)
    optimizer.build(other.trainable_variables)
    other.set_weights(model.get_weights())
    other.normalizer.finalize_state()
    other.seed_generator.state.assign(model.seed_generator.state)
    for new, old in zip(optimizer.variables, model.optimizer.variables, strict=True):
        new.assign(old)
    return other
