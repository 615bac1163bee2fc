"""The recipe's parts are added one by one, and each is given its time and no more."""

import dataclasses
import sys

import numpy as np
import pytest
from conftest import ROOT

from diffusion.training.config import get_preset

sys.path.insert(0, str(ROOT / "scripts"))

import itertools

import recipe_parts


def test_from_the_chapters_recipe_to_the_presets_own_one_part_at_a_time():
    preset = get_preset("laptop")
    configs = [config for _, config in recipe_parts.recipes(preset)]
    changed = [
        {
            field.name
            for field in dataclasses.fields(preset)
            if getattr(before, field.name) != getattr(after, field.name)
        }
        for before, after in itertools.pairwise(configs)
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
    same = {"half_size_epochs": preset.half_size_epochs}  # there it is a share of the time
    assert dataclasses.replace(configs[-1], **same) == preset


@pytest.mark.parametrize("half_size_epochs", [0, 1])
def test_steps_are_taken_until_the_time_is_spent(tiny, half_size_epochs, monkeypatch):
    """The clock goes on by a second at each look: by one at each step but the first of a stage."""
    ticks = iter(range(1000))
    monkeypatch.setattr(recipe_parts.time, "process_time", lambda: float(next(ticks)))
    images = np.random.default_rng(0).integers(0, 256, (16, 16, 16, 3), dtype="uint8")
    config = dataclasses.replace(
        tiny, half_size_epochs=half_size_epochs, decay_learning_rate=True, learning_rate=1e-3
    )
    steps, network, average = recipe_parts.train(config, (images, images[:8]), 5.0)
    assert steps == 5 + (2 if half_size_epochs else 1)
    assert 0.3 < network < 1.2 and 0.3 < average < 1.2


def test_the_rate_rises_and_falls_to_nothing():
    budget = recipe_parts.Budget(get_preset("quick"), 100.0)
    rates = []
    for budget.spent in (0.0, 2.0, 5.0, 50.0, 100.0):
        rates.append(budget.learning_rate())
    assert 0 < rates[0] < rates[1] < rates[2] and rates[2] > rates[3] > rates[4]
    assert rates[3] == pytest.approx(get_preset("quick").learning_rate / 2) and rates[4] < 1e-9


def test_no_time_is_refused_in_one_line(capsys, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["recipe_parts.py", "--seconds", "0"])
    with pytest.raises(SystemExit) as stopped:
        recipe_parts.main()
    assert stopped.value.code == 2
    assert capsys.readouterr().err == "error: --seconds must be above 0, got 0\n"
