"""Build a model from a configuration, load one from its file, change its resolution."""

from collections.abc import Callable, Sequence
from pathlib import Path

import keras

from diffusion import ddpm, noisy_classifier  # noqa: F401 (registers classes: their files load)
from diffusion.light_unet import build_light_unet
from diffusion.model import DiffusionModel
from diffusion.modern_unet import build_modern_unet
from diffusion.objectives import make_objective
from diffusion.schedules import SCHEDULES
from diffusion.support import normalization  # noqa: F401 (as `ddpm`)
from diffusion.support.backend import compile_with_xla
from diffusion.support.keras_files import load_keras_file, model_file
from diffusion.support.precision import choose_precision
from diffusion.training.config import LOSSES, Config
from diffusion.transformer import build_transformer
from diffusion.unet import build_unet

NETWORKS = {
    "unet": build_unet,
    "modern_unet": build_modern_unet,
    "transformer": build_transformer,
    "light_unet": build_light_unet,
}


def build(
    config: Config,
    total_steps: int,
    image_size: int | None = None,
    class_names: Sequence[str] = (),
    builder: Callable[..., keras.Model] | None = None,
) -> DiffusionModel:
    """Build and compile the model that `config` describes. Listing 8-10.

    total_steps: of the whole training, which a decaying learning rate depends on.
    image_size: default `config.image_size`.
    class_names: of the labels, used if `config.labels`.
    builder: of the network, called as `build_unet` is; default the one that `config` names.
    The initial weights follow from `config.seed` (this sets Keras's global seed).
    Raises ValueError for an unknown schedule, objective, weighting, loss, network or precision, and
    for labels of fewer than two names.
    """
    if config.labels and len(class_names) < 2:
        raise ValueError(
            f"labels need two class_names or more, got {list(class_names)}: train on flowers with "
            "names, or without labels"
        )
    for name, choices in (("schedule", SCHEDULES), ("loss", LOSSES), ("network", NETWORKS)):
        if (value := getattr(config, name)) not in choices:
            raise ValueError(f"no {name} {value!r}: choose one of {', '.join(choices)}")
    objective = make_objective(config.objective, config.loss_weighting)
    keras.utils.set_random_seed(config.seed)
    class_names = class_names if config.labels else ()
    network = (builder or NETWORKS[config.network])(
        image_size or config.image_size,
        config.widths,
        config.block_depth,
        config.embedding_dims,
        choose_precision(config.precision),
        config.self_conditioning,
        len(class_names),
    )
    model = DiffusionModel(
        network,
        SCHEDULES[config.schedule](),
        config.ema,
        config.ema_warmup,
        config.seed,
        objective=objective,
        class_names=class_names,
        label_dropout=config.label_dropout,
    )
    learning_rate = config.learning_rate
    if config.decay_learning_rate:
        warmup = min(100, total_steps // 10)
        learning_rate = keras.optimizers.schedules.CosineDecay(
            0.0, total_steps - warmup, warmup_target=learning_rate, warmup_steps=warmup
        )
    model.compile(
        optimizer=keras.optimizers.AdamW(
            learning_rate,
            weight_decay=config.weight_decay,
            global_clipnorm=config.gradient_norm or None,
        ),
        loss=config.loss,
        jit_compile=compile_with_xla(),
    )
    return model


def load_model(path: Path | str) -> DiffusionModel:
    """Load a model saved by this library, from a `.keras` file or a run's folder.

    Safe mode stays on: the file holds data, not code. Raises FileNotFoundError where there is no
    file, ValueError where it is not such a model, is damaged, or needs a class that no import has
    registered.
    """
    file = model_file(path)
    model = load_keras_file(file, "a model of this library")
    if not isinstance(model, DiffusionModel):
        raise ValueError(f"{file} holds a {type(model).__name__}, not a DiffusionModel")
    model.jit_compile = compile_with_xla()
    return model


def copy_weights(source: DiffusionModel, model: DiffusionModel) -> None:
    """Give `model` the moving average of `source`, in both its networks, and its statistics.

    Raises ValueError unless both have the same network and the same names; sizes of images may
    differ.
    """
    shapes = [[weight.shape for weight in each.network.weights] for each in (source, model)]
    if shapes[0] != shapes[1]:
        counts = [f"{each.network.count_params():,}" for each in (source, model)]
        raise ValueError(
            f"the model to start from has another network ({counts[0]} parameters, here "
            f"{counts[1]}): use the preset and the options that it was trained with"
        )
    if source.class_names != model.class_names:
        raise ValueError(
            f"the model to start from knows other names ({len(source.class_names)}) than these "
            f"flowers ({len(model.class_names)}): name the data it was trained on"
        )
    for network in (model.network, model.ema_network):
        network.set_weights(source.ema_network.get_weights())
    model.normalizer.set_weights(source.normalizer.get_weights())
    model.normalizer.finalize_state()


def resized(
    model: DiffusionModel,
    config: Config,
    image_size: int,
    builder: Callable[..., keras.Model] | None = None,
) -> DiffusionModel:
    """Return the model at another resolution, with its weights, optimizer and random state.

    The network is convolutional, so no weight depends on the resolution. Raises ValueError where
    `config` now builds another network than the model's.
    """
    other = build(config, 1, image_size, model.class_names, builder)
    shapes = [[weight.shape for weight in each.network.weights] for each in (model, other)]
    if shapes[0] != shapes[1]:
        raise ValueError(
            f"the network {config.network} of this configuration has other weights than the model "
            "to resize: continue with the version of the code that began the run"
        )
    for kept in ("schedule", "objective", "ema", "ema_warmup", "label_dropout"):
        setattr(other, kept, getattr(model, kept))
    optimizer = type(model.optimizer).from_config(model.optimizer.get_config())
    other.compile(optimizer=optimizer, loss=model.loss, jit_compile=model.jit_compile)
    optimizer.build(other.trainable_variables)
    other.set_weights(model.get_weights())
    other.normalizer.finalize_state()
    other.seed_generator.state.assign(model.seed_generator.state)
    for new, old in zip(optimizer.variables, model.optimizer.variables, strict=True):
        new.assign(old)
    return other
