"""Loss curves: fine-grained, without gap or repetition, and compared with what is normal."""

import dataclasses
import json
import re
import shutil
import sys

import numpy as np
import pytest
from conftest import ROOT, needs_tensorboard
from PIL import Image

from diffusion.training.callbacks import LossCurve
from diffusion.training.config import PRESETS, get_preset
from diffusion.training.curves import Curve, Part, read_curve, read_losses, write_losses
from diffusion.training.loop import train
from diffusion.training.reference_losses import (
    FILE,
    collect,
    differences,
    normal_range,
    read_references,
    table,
    verdict,
)

REFERENCES = read_references() if FILE.exists() else {}


# --- recorded ---


class Counting:
    """As much of a model as the callback looks at: a count of steps and a size of pictures."""

    def __init__(self):
        self.optimizer, self.image_size = self, 16
        self.iterations = np.array(0)


def record(path, model, losses, epochs, steps=60, stop=None):
    """Drive the callback as `fit` does, with Keras's running means, of `losses` by step."""
    curve = LossCurve(path)
    curve.set_model(model)
    curve.on_train_begin()
    for epoch in epochs:
        curve.on_epoch_begin(epoch)
        begun, total = int(model.iterations), 0.0
        for step in range(begun, (epoch + 1) * steps):
            total += losses[step]
            mean = total / (step - begun + 1)
            model.iterations += 1
            curve.on_train_batch_end(step - begun, {"loss": mean})
            if step + 1 == stop:
                break
        curve.on_epoch_end(epoch, {"loss": mean})
    curve.on_train_end()
    return read_losses(path)


def test_a_part_is_the_mean_of_its_own_steps_not_of_the_epoch_so_far(tmp_path):
    losses = np.random.default_rng(0).uniform(0.1, 0.9, 180)
    parts = record(tmp_path / "losses.csv", Counting(), losses, range(3))
    assert [part.step for part in parts] == [25, 50, 60, 75, 100, 120, 125, 150, 175, 180]
    for part in parts:
        expected = losses[part.step - part.steps : part.step].mean()
        assert part.loss == pytest.approx(expected, abs=1e-6)


def test_a_run_stopped_and_one_killed_leave_neither_a_gap_nor_a_step_twice(tmp_path):
    losses, path = np.random.default_rng(0).uniform(0.1, 0.9, 180), tmp_path / "losses.csv"
    model = Counting()
    record(path, model, losses, [0, 1], stop=107)  # stopped amid the second epoch, and saved
    record(path, model, losses, [1, 2])  # ends it; and then is killed, saved after 120 steps
    model.iterations = np.array(120)
    parts = record(path, model, losses, [2])
    ends = [25, 50, 60, 75, 100, 107, 120, 125, 150, 175, 180]
    assert [part.step for part in parts] == ends
    assert [part.steps for part in parts] == np.diff([0, *ends]).tolist()
    for part in parts:
        expected = losses[part.step - part.steps : part.step].mean()
        assert part.loss == pytest.approx(expected, abs=1e-6)


def test_training_leaves_a_curve_that_agrees_with_the_losses_of_the_epochs(
    trained, painted, tmp_path
):
    assert [part.step for part in read_losses(trained.folder / "losses.csv")] == [6, 12]
    shutil.copytree(trained.folder, tmp_path / "run")
    lines = (tmp_path / "run" / "losses.csv").read_text() + "18,6,16,9.9\n"  # never saved
    (tmp_path / "run" / "losses.csv").write_text(lines)
    config = get_preset("tiny", epochs=4)
    train(config, painted, tmp_path / "run", resume=True, max_steps=20, verbose=0)
    run = train(config, painted, tmp_path / "run", resume=True, verbose=0)
    parts = read_losses(tmp_path / "run" / "losses.csv")
    assert [part.step for part in parts] == [6, 12, 18, 20, 24]
    np.testing.assert_allclose([part.loss for part in parts], run.losses, atol=1e-6)
    assert {part.image_size for part in parts} == {16}
    assert run.record["loss"] == "mean_absolute_error"


# --- read ---


@needs_tensorboard
def test_tensorboard_says_the_same_and_an_epochs_losses_will_do(trained, tmp_path):
    own = read_curve(trained.folder)
    shutil.copytree(trained.folder / "logs", tmp_path / "logs")  # away from the run
    logged = read_curve(tmp_path / "logs")
    for ours, theirs in zip(own.parts, logged.parts, strict=True):
        assert ours[:2] == theirs[:2] and ours.loss == pytest.approx(theirs.loss, abs=1e-6)
    assert read_curve(trained.folder / "logs").about == own.about != {} == logged.about
    shutil.rmtree(tmp_path / "logs" / "steps")
    with pytest.raises(ValueError, match=r"one loss an epoch.*--steps-per-epoch"):
        read_curve(tmp_path / "logs")
    per_epoch = read_curve(tmp_path / "logs", steps_per_epoch=6)
    np.testing.assert_allclose([part.loss for part in per_epoch.parts], trained.losses, rtol=1e-6)
    assert [part[:2] for part in per_epoch.parts] == [(6, 6), (12, 6)]


@needs_tensorboard
def test_tensorboard_forgets_what_a_killed_run_had_not_saved(tmp_path):
    from diffusion.training.callbacks import Events

    for done, losses in ((0, {25: 0.8, 50: 0.7, 75: 0.6}), (50, {60: 0.5, 75: 0.4})):
        events = Events(tmp_path, done)
        for step, loss in losses.items():
            events.add("loss", loss, step)
        events.close()
    parts = read_curve(tmp_path).parts
    assert [part.step for part in parts] == [25, 50, 60, 75]
    assert [part.loss for part in parts] == pytest.approx([0.8, 0.7, 0.5, 0.4])


def test_a_run_older_than_the_curve_has_the_losses_of_its_epochs(trained, tmp_path):
    shutil.copy(trained.folder / "run.json", tmp_path)
    parts = read_curve(tmp_path).parts
    assert [part[:2] for part in parts] == [(6, 6), (12, 6)]
    assert [part.loss for part in parts] == trained.losses


def test_the_loss_near_a_step_is_the_mean_of_the_last_quarter():
    losses = np.random.default_rng(0).uniform(0.1, 0.9, 1000)
    parts = [Part(end, 25, 64, losses[end - 25 : end].mean()) for end in range(25, 1001, 25)]
    curve = Curve("run", parts, {})
    assert curve.near(100) == pytest.approx(losses[75:100].mean())
    assert curve.near(1000) == pytest.approx(losses[750:].mean())
    assert curve.near(1500) is None  # not reached
    coarse = Curve("run", [Part(500, 500, 64, 0.3), Part(1000, 500, 64, 0.2)], {})
    assert coarse.near(1000) is None and coarse.near(100) is None  # cannot be told


# --- compared ---


def about(seed=0, **changes):
    """A run's record, of the book preset but for `changes`."""
    names = [field.name for field in dataclasses.fields(PRESETS["book"])]
    config = get_preset("book", seed=seed, **{k: v for k, v in changes.items() if k in names})
    return {
        "config": {**dataclasses.asdict(config), "widths": list(config.widths)},
        "data": "7,370 flowers",
        "loss": config.loss,
        "machine": "2 CPU cores",
        "precision": "float32",
        "versions": "Keras",
    } | {name: value for name, value in changes.items() if name not in names}


def put_run(folder, level, steps=1000, **changes):
    """Write the files of a run with one and the same loss at each step."""
    folder.mkdir()
    size = changes.get("image_size", 64)
    parts = [Part(end, 25, size, level) for end in range(25, steps + 1, 25)]
    write_losses(folder / "losses.csv", parts)
    (folder / "run.json").write_text(json.dumps(about(**changes)))
    return folder


@pytest.fixture
def reference_file(tmp_path):
    """References of the book preset: three seeds, with losses 0.19, 0.20 and 0.21."""
    losses = {2: 0.21, 0: 0.2, 1: 0.19}
    runs = [put_run(tmp_path / f"seed{s}", loss, seed=s) for s, loss in losses.items()]
    file = tmp_path / "references.json"
    file.write_text('{"quick": {"runs": []}}')
    assert collect(runs, file) == "book"
    return file


def test_finished_runs_become_the_reference_of_their_preset(reference_file, tmp_path):
    references = read_references(reference_file)
    assert set(references) == {"quick", "book"}  # what was there stays
    book = references["book"]
    assert [run["seed"] for run in book["runs"]] == [0, 1, 2]
    assert [curve.near(1000) for curve in book["curves"]] == pytest.approx([0.2, 0.19, 0.21])
    assert book["data"] == "7,370 flowers" and book["config"]["image_size"] == 64
    assert "| 300 | 0.2000 | 0.1900 to 0.2100 | 3 |\n" in table(book)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"seed": 1, "learning_rate": 0.1}, "differ in learning_rate"),
        ({"seed": 1, "data": "48 painted flowers"}, "differ in data"),
        ({"seed": 0}, "each must have its own"),
    ],
)
def test_runs_that_differ_in_more_than_their_seed_are_no_reference(tmp_path, changes, words):
    runs = [put_run(tmp_path / "a", 0.2), put_run(tmp_path / "b", 0.2, **changes)]
    with pytest.raises(ValueError, match=words):
        collect(runs, tmp_path / "file.json")
    assert not (tmp_path / "file.json").exists()


@pytest.mark.parametrize(
    ("loss", "words"),
    [
        (0.205, "0.2050 after 1,000 steps is within what is normal"),
        (0.225, "within what is normal"),  # above all three, but not by more than they span
        (0.24, "above what is normal, 20% off the reference's mean 0.2000: check the learning"),
        (0.16, "below what is normal, 20% off the reference's mean 0.2000: fine where"),
    ],
)
def test_a_loss_is_said_to_be_normal_above_or_below(reference_file, tmp_path, loss, words):
    curve = read_curve(put_run(tmp_path / "mine", loss, seed=7, epochs=3))
    (sentence,) = verdict(curve, read_references(reference_file)["book"])
    assert sentence.startswith("mine: ") and words in sentence


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"image_size": 32}, "mine has image_size 32, the reference 64."),
        ({"loss": "mean_squared_error"}, "mine has loss mean_squared_error, the reference mean_a"),
        ({"objective": "velocity"}, "mine has objective velocity, the reference noise."),
    ],
)
def test_a_loss_that_means_something_else_is_not_compared(reference_file, tmp_path, changes, words):
    curve = read_curve(put_run(tmp_path / "mine", 0.2, **changes))
    note, end = verdict(curve, read_references(reference_file)["book"])
    assert note.startswith(words) and "cannot be compared" in end


def test_other_data_is_noted_and_a_short_run_has_no_verdict(reference_file, tmp_path):
    curve = read_curve(put_run(tmp_path / "mine", 0.2, data="painted", steps=50))
    note, end = verdict(curve, read_references(reference_file)["book"])
    assert note == "mine has data painted, the reference 7,370 flowers."
    assert "no mean loss near step 100" in end


def test_chance_alone_makes_few_runs_abnormal():
    rng = np.random.default_rng(0)
    for step in (100, 1000):
        deviation = 0.2 * 0.06 / np.sqrt(step / 4)  # the loss, 0.2, of a batch wanders by 6%
        abnormal = 0
        for _ in range(2000):
            *three, mine = rng.normal(0.2, deviation, 4)
            low, high = normal_range(step, three)
            abnormal += not low <= mine <= high
        assert abnormal < 20  # 1 in 100


# --- the command, and what it says in the documentation ---


@pytest.fixture
def compare_loss(monkeypatch, capsys):
    """Run scripts/compare_loss.py in this process: its status, output and errors."""
    monkeypatch.syspath_prepend(ROOT / "scripts")
    import command
    import compare_loss

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["compare_loss.py", *map(str, arguments)])
        with pytest.raises(SystemExit) as end:
            command.run(compare_loss.main)
        return end.value.code, *capsys.readouterr()

    return run


def test_the_command_draws_the_curve_and_says_it_in_a_sentence(
    compare_loss, reference_file, tmp_path
):
    figures = []
    for name, loss in (("mine", 0.201), ("yours", 0.3)):
        folder, figure = put_run(tmp_path / name, loss, seed=5), tmp_path / f"{name}.png"
        status, output, _ = compare_loss(folder, "--to", reference_file, "--output", figure)
        assert status == 0
        assert f"| runs | {name} |" in output and f"| 3 | {loss:.4f} |" in output
        assert ("within what is normal" in output) == (name == "mine")
        figures.append(np.asarray(Image.open(figure)))
    assert figures[0].shape != figures[1].shape or (figures[0] != figures[1]).any()


def test_a_mistake_is_one_line(compare_loss, reference_file, tmp_path):
    for arguments, words in (
        (["nowhere"], "nowhere"),
        (["--preset", "laptop"], "no reference losses of preset 'laptop': choose one of quick"),
        (["--collect", tmp_path / "seed0", tmp_path / "seed0"], "[0, 0]"),
        (["--steps-per-epoch", 0], "got 0"),
    ):
        status, _, errors = compare_loss(
            *arguments, "--to", reference_file, "--output", tmp_path / "no.png"
        )
        assert status == 2 and words in errors
        assert errors.startswith("error: ") and errors.count("\n") == 1
    assert not (tmp_path / "no.png").exists()


@pytest.mark.parametrize("preset", REFERENCES)
def test_the_references_were_trained_as_the_presets_say(preset):
    reference = REFERENCES[preset]
    config = json.loads(json.dumps(dataclasses.asdict(get_preset(preset))))
    assert not differences({**reference, "config": config}, reference)
    assert "7,370 flowers" in reference["data"] and len(reference["curves"]) > 1


def test_the_page_shows_the_references_as_they_are():
    page = (ROOT / "docs" / "is_my_loss_normal.md").read_text()
    for preset, reference in REFERENCES.items():
        assert f"`{preset}`" in page and table(reference) in page
    assert (ROOT / "docs" / "images" / "loss_curves.png").is_file()
    for path in re.findall(r"(scripts/\w+\.py)", page):
        assert (ROOT / path).is_file()
