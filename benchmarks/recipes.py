"""The recipes that `recipe_parts` compares: a base, and what each of the others changes in it."""

import dataclasses
from typing import Any

from diffusion.training.config import Config, get_preset

BASE = get_preset("named", half_size_epochs=0, schedule="offset_cosine")
LIGHT = (64, 128, 256, 512)  # the levels f1 to f4 of the light network
CHAPTER = get_preset(
    "quick",
    precision="float32",
    learning_rate=1e-3,
    decay_learning_rate=False,
    ema=0.999,
    ema_warmup=False,
    flip=False,
)


@dataclasses.dataclass(frozen=True)
class Recipe:
    """A network and how to train it.

    words: what it is, in one line.
    config: its numbers. The comparison sets seed and image size, and lowers the learning rate by
        the share of the time that is spent, if `decay_learning_rate`.
    options: what the network's builder takes beyond the numbers in `config`.
    smaller: pairs (divisor of the side, share of the time) that come before the full size.
    middle_times: draw times more often in the middle; see `recipe_training.MiddleTimes`.
    shifts: shift each image at random by up to an eighth of its side.
    averages: shares that moving averages of the weights keep at each step, each judged; 0 is the
        network itself. Without any, the model's own average is judged.
    """

    words: str
    config: Config
    options: dict[str, Any] = dataclasses.field(default_factory=dict)
    smaller: tuple[tuple[int, float], ...] = ()
    middle_times: bool = False
    shifts: bool = False
    averages: tuple[float, ...] = ()


PARTS = {field.name for field in dataclasses.fields(Recipe)}


def _changed(words: str, config: Config = BASE, **changes: Any) -> Recipe:
    """Return a recipe: fields of `Recipe`, and fields of its configuration."""
    parts = {name: changes.pop(name) for name in PARTS & changes.keys()}
    return Recipe(words, dataclasses.replace(config, **changes), **parts)


def _chapter() -> dict[str, Recipe]:
    """Return the chapter's recipe and, one after the other, the parts of preset `quick`."""
    parts: tuple[tuple[str, str, dict], ...] = (
        ("chapter", "the chapter's recipe in float32, for the network of preset quick", {}),
        ("chapter_bfloat16", "and bfloat16 where it is fast", {"precision": "auto"}),
        ("chapter_warmup", "and the average warmed up", {"ema_warmup": True}),
        (
            "chapter_decay",
            "and a learning rate of 0.003, lowered to 0",
            {"learning_rate": 3e-3, "decay_learning_rate": True},
        ),
        ("chapter_half", "and 60% of the time at half the size", {"smaller": ((2, 0.6),)}),
        ("chapter_flips", "and flips", {"flip": True}),
    )
    recipes, changes = {}, {}
    for name, words, change in parts:
        changes |= change
        recipes[name] = _changed(words, CHAPTER, averages=(0.0, CHAPTER.ema), **changes)
    return recipes


def _transformer(words: str, patch_size: int) -> Recipe:
    return _changed(
        f"the transformer: {words}, 8 blocks of width 256",
        network="transformer",
        widths=(256,),
        block_depth=8,
        options={"patch_size": patch_size},
    )


RECIPES = {
    "base": _changed("the modern network with names: velocity, squared error, rate 0.002"),
    # the network
    "chapter_network": _changed(
        "the chapter's network, with names",
        network="unet",
        widths=(32, 64, 96, 128),
        embedding_dims=32,
    ),
    "no_names": _changed("without names", labels=False),
    "no_attention": _changed("without attention", options={"attention_levels": 0}),
    "no_stem": _changed(
        "without the 2x2 stem: one more level of 32 channels at the full size",
        options={"patch_size": 1},
        widths=(32, 64, 128, 256),
    ),
    "patch_4": _changed("patches of 4x4 pixels", options={"patch_size": 4}),
    "narrow": _changed("narrower: widths 48/96/192", widths=(48, 96, 192)),
    "wide": _changed("wider: widths 96/192/384", widths=(96, 192, 384)),
    "shallow": _changed("one residual block a level", block_depth=1),
    "deep": _changed("three residual blocks a level", block_depth=3),
    "deep_bottom": _changed("four residual blocks at the bottom", options={"bottom_depth": 4}),
    "four_levels": _changed("a fourth level of 256 channels", widths=(64, 128, 256, 256)),
    "four_levels_attention": _changed(
        "a fourth level, and attention at the lowest two",
        widths=(64, 128, 256, 256),
        options={"attention_levels": 2},
    ),
    # the transformer
    "transformer": _transformer("patches of 4x4 pixels", 4),
    "transformer_2": _transformer("patches of 2x2", 2),
    "transformer_8": _transformer("patches of 8x8", 8),
    # the light network
    "light_unet": _changed("the light network", network="light_unet", widths=LIGHT),
    "light_unet_half": _changed(
        "the light network with half the channels",
        network="light_unet",
        widths=LIGHT,
        options={"alpha": 0.5},
    ),
    "light_unet_separable": _changed(
        "the light network, its decoder also depthwise-separable",
        network="light_unet",
        widths=LIGHT,
        options={"separable_decoder": True},
    ),
    # what it learns
    "noise_l1": _changed(
        "the noise, absolute error", objective="noise", loss="mean_absolute_error"
    ),
    "noise_l2": _changed("the noise, squared error", objective="noise"),
    "velocity_l1": _changed("absolute error of the velocity", loss="mean_absolute_error"),
    "min_snr": _changed("min-SNR weights", loss_weighting="min_snr"),
    "middle_times": _changed("times drawn more often in the middle", middle_times=True),
    "shifted": _changed("more time at high noise", schedule="shifted_cosine"),
    # how it learns
    "rate_0.001": _changed("a learning rate of 0.001", learning_rate=1e-3),
    "rate_0.004": _changed("a learning rate of 0.004", learning_rate=4e-3),
    "batch_32": _changed("batches of 32", batch_size=32),
    "batch_128": _changed("batches of 128", batch_size=128),
    "averages": _changed(
        "moving averages of several lengths in one run",
        averages=(0.0, 0.98, 0.99, 0.995, 0.998, 0.999, 0.9995),
    ),
    # on what
    "half_55": _changed("55% of the time at half the size", smaller=((2, 0.55),)),
    "half_80": _changed("80% of the time at half the size", smaller=((2, 0.8),)),
    "quarter_half": _changed(
        "30% of the time at a quarter of the size, 40% at half", smaller=((4, 0.3), (2, 0.4))
    ),
    "no_flips": _changed("without flips", flip=False),
    "shifts": _changed("images shifted by up to an eighth", shifts=True),
    **_chapter(),
}
