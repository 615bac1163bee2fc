"""Presets: the numbers of a run, in one place.

`get_preset("book")` has the chapter's numbers, "quick" a small model that generates flowers after
minutes on two CPU cores, "laptop" a better one that takes about an hour, "named" one that knows
the flowers' names and takes half an hour, and "tiny" one for tests that takes seconds.
Change any number with `get_preset("quick", epochs=3)`.
"""

import dataclasses

LOSSES = ("mean_absolute_error", "mean_squared_error")  # L1, the chapter's; L2, DDPM's
KINDS: "dict[object, str]" = {  # quoted: `make check` imports this under old Pythons
    str: "a text",
    int: "a whole number",
    bool: "True or False",
    float: "a number",
    tuple: "a list",
    list: "a list",
    dict: "an object {...}",
}


def is_a(value, kind) -> bool:
    """Return whether `value` has the type `kind`; an int is also a float, True is no int."""
    if isinstance(value, bool):
        return kind is bool
    return isinstance(value, (int, float) if kind is float else kind)


@dataclasses.dataclass(frozen=True)
class Config:
    """The numbers of one run, made by `get_preset`. Raises ValueError for a type or a range."""

    name: str
    # data
    image_size: int  # side, in pixels
    fit: str  # "crop" the middle square, or "stretch" the whole picture, as the chapter does
    repeats: int  # passes through the images per epoch
    flip: bool  # mirror half of the images left to right
    painted: int  # flowers to paint if none have been downloaded
    # network
    widths: tuple  # channels at each resolution
    block_depth: int  # residual blocks at each resolution
    embedding_dims: int  # length of the embedding of the noise variance
    schedule: str  # a name in schedules.SCHEDULES
    precision: str  # "float32", "mixed_bfloat16", or "auto": the faster here
    # training
    batch_size: int
    epochs: int
    half_size_epochs: int  # how many of them come first at half the resolution: four times as
    # fast, and the weights carry over, since the network is convolutional
    learning_rate: float
    decay_learning_rate: bool  # to zero along a cosine; constant in the chapter
    weight_decay: float
    ema: float  # share of the moving average kept at each step
    ema_warmup: bool  # forget the random start sooner: min(ema, (1 + n)/(10 + n)) at step n
    # sampling
    sampling_steps: int
    seed: int = 0
    # beyond the chapter (notebook 07); runs older than these fields used the defaults
    objective: str = "noise"  # what the network predicts: a name in objectives.OBJECTIVES
    loss: str = "mean_absolute_error"  # a name in LOSSES
    loss_weighting: str = "none"  # or a name in objectives.WEIGHTINGS
    self_conditioning: bool = False  # feed the network its own earlier estimate
    # flowers by name (notebook 11)
    network: str = "unet"  # a name in building.NETWORKS
    labels: bool = False  # learn the images' names
    label_dropout: float = 0.1  # share of names withheld at each step, for guidance
    gradient_norm: float = 0.0  # gradients longer than this are shortened to it; 0 keeps all

    def __post_init__(self):
        if isinstance(self.widths, list):  # as JSON has it
            object.__setattr__(self, "widths", tuple(self.widths))
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if not is_a(value, field.type):
                raise ValueError(f"{field.name} must be {KINDS[field.type]}, got {value!r}")
        for name in ("image_size", "repeats", "painted", "batch_size", "epochs", "sampling_steps"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be 1 or more, got {getattr(self, name)}")
        if not self.widths or not all(is_a(width, int) and width > 0 for width in self.widths):
            raise ValueError(f"widths must be whole numbers, 1 or more, got {self.widths}")
        if not 0 <= self.half_size_epochs < self.epochs:
            raise ValueError(
                f"half_size_epochs must be at least 0 and below epochs ({self.epochs}), "
                f"got {self.half_size_epochs}"
            )
        if not 0 <= self.ema < 1:
            raise ValueError(f"ema must be at least 0 and below 1, got {self.ema}")
        if not 0 <= self.label_dropout < 1:
            raise ValueError(
                f"label_dropout must be at least 0 and below 1, got {self.label_dropout}"
            )
        if not 0 <= self.gradient_norm < float("inf"):
            raise ValueError(
                f"gradient_norm must be at least 0 and finite, got {self.gradient_norm}"
            )
        if not 0 < self.learning_rate < float("inf"):
            raise ValueError(f"learning_rate must be above 0 and finite, got {self.learning_rate}")


_BOOK = Config(
    name="book",
    image_size=64,
    fit="stretch",
    repeats=5,
    flip=False,
    painted=4000,
    widths=(32, 64, 96, 128),
    block_depth=2,
    embedding_dims=32,
    schedule="offset_cosine",
    precision="auto",
    batch_size=64,
    epochs=50,
    half_size_epochs=0,
    learning_rate=1e-3,
    decay_learning_rate=False,
    weight_decay=1e-4,
    ema=0.999,
    ema_warmup=False,
    sampling_steps=20,
)

_LAPTOP = dataclasses.replace(
    _BOOK,
    name="laptop",
    fit="crop",
    repeats=1,
    flip=True,
    epochs=45,
    half_size_epochs=34,
    learning_rate=2e-3,
    decay_learning_rate=True,
    ema_warmup=True,
)

PRESETS = {
    "book": _BOOK,
    "quick": dataclasses.replace(
        _BOOK,
        name="quick",
        image_size=32,
        fit="crop",
        repeats=1,
        flip=True,
        painted=7000,
        widths=(16, 32, 64, 128),
        embedding_dims=16,
        epochs=7,
        learning_rate=3e-3,
        decay_learning_rate=True,
        ema=0.995,  # averages the last 200 of some 800 steps; 0.999 would average them all
        ema_warmup=True,
    ),
    "laptop": _LAPTOP,
    "named": dataclasses.replace(
        _LAPTOP,
        name="named",
        network="modern_unet",
        labels=True,
        schedule="shifted_cosine",
        widths=(64, 128, 256),
        embedding_dims=64,
        objective="velocity",
        loss="mean_squared_error",
        epochs=25,
        half_size_epochs=21,
        gradient_norm=1.0,
        sampling_steps=10,
    ),
    "tiny": dataclasses.replace(
        _BOOK,
        name="tiny",
        image_size=16,
        fit="crop",
        repeats=1,
        painted=48,
        widths=(8, 16),
        block_depth=1,
        embedding_dims=8,
        precision="float32",
        batch_size=8,
        epochs=2,
        ema_warmup=True,
        sampling_steps=3,
    ),
}


def get_preset(name: str = "quick", **changes) -> Config:
    """Return the preset of that name, with `changes` to its fields.

    If `epochs` changes, the share of half-size epochs stays the same.
    Raises ValueError for an unknown name or field, or a value of the wrong type or range.
    """
    if name not in PRESETS:
        raise ValueError(f"no preset {name!r}: choose one of {', '.join(PRESETS)}")
    fields = [field.name for field in dataclasses.fields(Config)]
    for field in changes:
        if field not in fields:
            raise ValueError(f"a preset has no {field!r}: choose from {', '.join(fields)}")
    preset = PRESETS[name]
    if isinstance(changes.get("epochs"), int) and "half_size_epochs" not in changes:
        changes["half_size_epochs"] = preset.half_size_epochs * changes["epochs"] // preset.epochs
    return dataclasses.replace(preset, **changes)
