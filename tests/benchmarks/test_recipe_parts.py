"""Recipes are compared at equal processor time, and no finished run is repeated."""

import argparse
import dataclasses
import itertools
import json
import math
from types import SimpleNamespace

import keras
import numpy as np
import pytest
from conftest import ROOT

from benchmarks import recipe_parts, recipe_training
from benchmarks.recipes import RECIPES, Recipe
from diffusion.schedules import SCHEDULES, CosineSchedule
from diffusion.training.config import get_preset


@pytest.fixture
def clock(monkeypatch):
    """Each reading of the processor's clock adds a second."""
    ticks = iter(range(10_000))
    monkeypatch.setattr(recipe_training.time, "process_time", lambda: float(next(ticks)))


@pytest.fixture
def small(tiny):
    """A recipe that trains with names in seconds."""
    config = dataclasses.replace(
        tiny,
        network="modern_unet",
        labels=True,
        objective="velocity",
        loss="mean_squared_error",
        decay_learning_rate=True,
    )
    return Recipe("small", config)


def test_the_chapters_recipe_becomes_the_quick_one_part_by_part():
    recipes = [recipe for name, recipe in RECIPES.items() if name.startswith("chapter")][1:]
    values = [{**vars(recipe), **vars(recipe.config)} for recipe in recipes]
    changed = [
        {name for name in before if before[name] != after[name]} - {"words", "config"}
        for before, after in itertools.pairwise(values)
    ]
    assert changed == [
        {"precision"},
        {"ema_warmup"},
        {"learning_rate", "decay_learning_rate"},
        {"smaller"},
        {"flip"},
    ]
    book, quick = get_preset("book"), get_preset("quick")
    for field in ("learning_rate", "ema", "ema_warmup", "flip", "half_size_epochs"):
        assert getattr(recipes[0].config, field) == getattr(book, field)
    assert dataclasses.replace(recipes[-1].config, ema=quick.ema) == quick


def test_each_other_recipe_changes_the_base():
    base = RECIPES["base"]
    assert len({recipe.words for recipe in RECIPES.values()}) == len(RECIPES)
    for name, recipe in RECIPES.items():
        same = dataclasses.replace(recipe, words=base.words) == base
        assert same == (name == "base"), name


@pytest.mark.parametrize("image_size", [32, 64])
def test_every_stage_of_every_recipe_suits_its_network(image_size):
    for name, recipe in RECIPES.items():
        patch = recipe.options.get("patch_size", 1 if recipe.config.network == "unet" else 2)
        multiple = patch * 2 ** (len(recipe.config.widths) - 1)
        stages = recipe_training.sizes(recipe_parts.seeded(recipe, 0, image_size))
        assert all(size % multiple == 0 for size, _ in stages), name
        ends = [0, *(end for _, end in stages)]
        assert ends == sorted(set(ends)) and ends[-1] == 1, name
        assert stages[-1][0] == image_size


def test_the_options_of_a_network_reach_it(small, painted, clock):
    def layers(name):
        config = dataclasses.replace(small.config, block_depth=2)
        recipe = dataclasses.replace(small, config=config, options=RECIPES[name].options)
        data = painted.images, painted.labels, painted.class_names
        network = recipe_training.train(recipe, *data, 1.0)[0].network
        return [type(layer).__name__ for layer in network.layers]

    base, bottom = layers("base"), layers("deep_bottom")
    assert base.count("MultiHeadAttention") == 2
    assert "MultiHeadAttention" not in layers("no_attention")
    assert bottom.count("MultiHeadAttention") == 4
    assert bottom.count("Modulation") == base.count("Modulation") + 2


@pytest.mark.slow
@pytest.mark.parametrize(("smaller", "ema_warmup"), [((), False), (((2, 0.6),), True)])
def test_training_goes_on_until_the_time_is_spent(small, painted, clock, smaller, ema_warmup):
    """The first step of a stage is not counted; each other one takes a second."""
    config = dataclasses.replace(small.config, ema_warmup=ema_warmup)
    recipe = dataclasses.replace(
        small, config=config, smaller=smaller, averages=(0.0, config.ema), middle_times=True
    )
    data = painted.images, painted.labels, painted.class_names
    model, averages, steps = recipe_training.train(recipe, *data, 5.0)
    assert steps == 5 + (2 if smaller else 1) and model.image_size == config.image_size
    assert isinstance(model.schedule, type(SCHEDULES[config.schedule]()))
    for length, network in ((0.0, model.network), (config.ema, model.ema_network)):
        for ours, theirs in zip(averages.weights[length], network.weights, strict=True):
            np.testing.assert_allclose(ours, keras.ops.convert_to_numpy(theirs), atol=1e-6)


def test_the_rate_is_warmed_up_and_lowered_to_nothing():
    preset = get_preset("quick")
    budget = recipe_training.Budget(preset, 100.0)
    rates = []
    for budget.spent in (0.0, 2.0, 5.0, 50.0, 100.0):
        rates.append(budget.learning_rate())
    assert 0 < rates[0] < rates[1] < rates[2] and rates[2] > rates[3] > rates[4]
    assert rates[3] == pytest.approx(preset.learning_rate / 2) and rates[4] < 1e-9


def test_middle_times_are_those_of_the_logistic_of_a_normal_number():
    """84.13% of normal numbers are below 1, so time 0.8413 becomes sigmoid(1)."""
    plain = CosineSchedule()
    below_one = (1 + math.erf(1 / math.sqrt(2))) / 2
    times = np.array([0, 1 - below_one, 0.5, below_one], "float32")
    expected = np.array([0, 1 / (1 + math.e), 0.5, math.e / (1 + math.e)], "float32")
    found = recipe_training.MiddleTimes(plain)(times)
    for ours, theirs in zip(found, plain(expected), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-5)


def test_shifts_move_each_image_by_an_eighth_at_most():
    rows, columns = np.mgrid[:16, :16].astype("uint8") * 10
    images = np.repeat(np.stack([rows, columns, rows], axis=-1)[None], 50, axis=0)
    moved = recipe_training.shifted(images, np.random.default_rng(0))
    assert moved.shape == images.shape and moved.dtype == "uint8"
    inner = moved[:, 2:-2, 2:-2].astype(int) - images[:, 2:-2, 2:-2]
    assert (inner == inner[:, :1, :1]).all()  # a shift, not a mixture
    shifts = {tuple(shift) for shift in inner[:, 0, 0, :2] // 10}
    assert {abs(step) for shift in shifts for step in shift} == {0, 1, 2} and len(shifts) > 10


def arguments(tmp_path, *recipes, **changes):
    defaults = {
        "recipes": recipes,
        "seeds": [0],
        "seconds": 2.0,
        "guidance": [1.0, 2.0],
        "num_images": 8,
        "output": tmp_path / "results.jsonl",
    }
    return SimpleNamespace(**defaults | changes)


@pytest.mark.slow
def test_a_resumed_comparison_repeats_no_run_and_ends_with_the_same_table(
    small, painted, tmp_path, clock, monkeypatch, capsys
):
    other = dataclasses.replace(small, words="other", averages=(0.0, 0.9))
    monkeypatch.setattr(recipe_parts, "RECIPES", {"one": small, "other": other})

    def rows(options):
        return recipe_parts.table(*recipe_parts.compare(painted, options), options.guidance)

    recipe_parts.compare(painted, arguments(tmp_path, "one"))  # interrupted after the first
    whole = rows(arguments(tmp_path, "one", "other"))
    assert "one, seed 0: already in" in capsys.readouterr().out
    assert [row[0] for row in whole[2:]] == ["one", "other, no average", "other, 0.9"]
    assert all(len(row) == len(whole[0]) for row in whole)

    def must_not_train(*_):
        raise AssertionError("a finished run is repeated")

    with monkeypatch.context() as patched:
        patched.setattr(recipe_parts, "run_recipe", must_not_train)
        assert rows(arguments(tmp_path, "one", "other")) == whole
        with pytest.raises(AssertionError):
            rows(arguments(tmp_path, "one", seconds=3.0))
        with pytest.raises(AssertionError):
            rows(arguments(tmp_path, "one", seeds=[1]))
    lines = arguments(tmp_path).output.read_text().splitlines()
    assert [json.loads(line)["settings"]["name"] for line in lines] == ["one", "other"]


def test_the_table_has_means_and_standard_deviations_over_seeds():
    def run(error, kid):
        real = {"kid": kid, "precision": 0.5, "recall": 0.25}
        score = {"average": 0.999, "noise_error": error, "velocity_error": 1, "guidance": {}}
        result = {"parameters": 1000, "steps": 10, "scores": [{**score, "guidance": {"1": real}}]}
        return {"settings": {"name": "base"}, "result": result}

    floor = {"kid": -0.001, "precision": 0.9, "recall": 0.88}
    _, real, row = recipe_parts.table([run(0.1, 0.2), run(0.3, 0.4)], floor, [1.0, 2.0])
    assert real[5:8] == ("-1", "0.90", "0.88")
    assert row == (
        *("base", "1,000", "10", "0.2000 ± 0.1414", "1.0000 ± 0.0000"),
        *("300 ± 141", "0.50 ± 0.00", "0.25 ± 0.00", "-", "-", "-"),
    )


def test_summaries_have_what_a_notebook_shows_of_each_run(tmp_path):
    def run(name, seconds, kid):
        guidance = {"1": {"kid": kid, "precision": 0.5, "recall": 0.25}, "2.5": {"kid": 0.4}}
        guidance["2.5"] |= {"precision": 0.6, "recall": 0.35}
        scores = [{"average": 0.999, "noise_error": 0.2, "velocity_error": 0.3}]
        scores[0]["guidance"] = guidance
        settings = {"name": name, "seconds": seconds, "recipe": {"config": {"seed": 0}}}
        result = {"parameters": 9, "steps": 7, "wall": 1, "scores": scores}
        return {"settings": settings, "result": result}

    path = tmp_path / "results.jsonl"
    assert recipe_parts.summaries(path) == []
    for each in (run("b", 60.0, 0.1), run("a", 60.0, 0.2), run("a", 20.0, 0.3)):
        recipe_parts.save_run(path, each)
    rows = recipe_parts.summaries(path)
    assert [(row["name"], row["seconds"]) for row in rows] == [("a", 20), ("a", 60), ("b", 60)]
    expected = {"name": "b", "seconds": 60.0, "seed": 0, "steps": 7, "parameters": 9}
    expected |= {
        "velocity_error": 0.3,
        "kid": {1.0: 0.1, 2.5: 0.4},
        "recall": {1.0: 0.25, 2.5: 0.35},
    }
    assert rows[-1] == expected


def test_the_notebooks_results_can_be_read():
    rows = recipe_parts.summaries(ROOT / "docs" / "networks.jsonl")
    found = {(row["name"], row["seconds"]) for row in rows}
    assert {(name, 360.0) for name in ("base", "chapter_network", "light_unet")} <= found


def test_list_names_all_recipes(monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["recipe_parts", "--list"])
    assert recipe_parts.main() == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == list(RECIPES)


@pytest.mark.parametrize(
    ("option", "value"),
    [("--seconds", "0"), ("--recipes", "huge"), ("--image-size", "48"), ("--num-images", "7")],
)
def test_a_mistake_is_named_in_one_line(refusal, option, value):
    error = refusal(recipe_parts.main, option, value)
    assert option in error and value in error


@pytest.mark.parametrize("line", ["no JSON", "[]", '{"settings": {}}'])
def test_a_file_of_something_else_is_refused(refusal, tmp_path, line):
    path = tmp_path / "results.jsonl"
    good = {"settings": {"name": "base"}, "result": {"scores": []}}
    path.write_text(f"{json.dumps(good)}\n{line}\n")
    error = refusal(recipe_parts.main, "--output", path)
    assert f"{path}, line 2," in error
    assert path.read_text().endswith(f"{line}\n")
    with pytest.raises(argparse.ArgumentTypeError, match="jsonl"):
        recipe_parts.results_file(str(tmp_path / "results.txt"))


def test_a_later_stage_goes_on_with_other_images(small, painted, clock, monkeypatch):
    epochs = []

    class Watched(recipe_training.Batches):
        def __init__(self, *arguments, **options):
            super().__init__(*arguments, **options)
            epochs.append(options["epoch"])

    monkeypatch.setattr(recipe_training, "Batches", Watched)
    recipe = dataclasses.replace(small, smaller=((2, 0.6),))
    recipe_training.train(recipe, painted.images, painted.labels, painted.class_names, 20.0)
    assert epochs[0] == 0 and epochs[1] > 0
