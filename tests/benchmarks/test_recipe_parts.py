"""The recipe's parts are added one by one, and each gets its time and no more."""

import dataclasses
import itertools

import numpy as np
import pytest

from benchmarks import recipe_parts
from diffusion.training.config import get_preset


def test_each_recipe_adds_one_part_from_the_chapters_to_the_presets_own():
    preset = get_preset("laptop")
    configs = [config for _, config in recipe_parts.recipes(preset)]
    values = [dataclasses.asdict(config) for config in configs]
    changed = [
        {name for name in before if before[name] != after[name]}
        for before, after in itertools.pairwise(values)
    ]
    assert changed == [
        {"precision"},
        {"ema_warmup"},
        {"learning_rate", "decay_learning_rate"},
        {"half_size_epochs"},
        {"flip"},
    ]
    book = get_preset("book")
    for field in ("learning_rate", "ema", "ema_warmup", "flip", "half_size_epochs"):
        assert getattr(configs[0], field) == getattr(book, field)
    same = {"half_size_epochs": preset.half_size_epochs}  # here it is a share of the time
    assert dataclasses.replace(configs[-1], **same) == preset


@pytest.mark.slow
@pytest.mark.parametrize("half_size_epochs", [0, 1])
def test_training_goes_on_until_the_time_is_spent(tiny, half_size_epochs, monkeypatch):
    """Each reading of the clock adds a second; the first step of a stage is not counted."""
    ticks = iter(range(1000))
    monkeypatch.setattr(recipe_parts.time, "process_time", lambda: float(next(ticks)))
    images = np.random.default_rng(0).integers(0, 256, (16, 16, 16, 3), dtype="uint8")
    config = dataclasses.replace(
        tiny, half_size_epochs=half_size_epochs, decay_learning_rate=True, learning_rate=1e-3
    )
    steps, network, average = recipe_parts.train(config, (images, images[:8]), 5.0)
    assert steps == 5 + (2 if half_size_epochs else 1)
    assert 0.3 < network < 1.2 and 0.3 < average < 1.2


def test_the_rate_is_warmed_up_and_lowered_to_nothing():
    preset = get_preset("quick")
    budget = recipe_parts.Budget(preset, 100.0)
    rates = []
    for budget.spent in (0.0, 2.0, 5.0, 50.0, 100.0):
        rates.append(budget.learning_rate())
    assert 0 < rates[0] < rates[1] < rates[2] and rates[2] > rates[3] > rates[4]
    assert rates[3] == pytest.approx(preset.learning_rate / 2) and rates[4] < 1e-9


@pytest.mark.parametrize(("option", "value"), [("--seconds", "0"), ("--preset", "huge")])
def test_a_mistake_is_named_in_one_line(refusal, option, value):
    error = refusal(recipe_parts.main, option, value)
    assert option in error and repr(value) in error
