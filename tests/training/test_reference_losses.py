"""Is my loss normal? References are collected, compared with, and shown as they are."""

import dataclasses
import json
import re

import numpy as np
import pytest
from conftest import ROOT
from PIL import Image
from processes import assert_one_line

from diffusion.training.config import get_preset
from diffusion.training.curves import Part, read_curve, write_losses
from diffusion.training.reference_losses import (
    FILE,
    collect,
    differences,
    normal_range,
    read_references,
    table,
    verdict,
)

REFERENCES = read_references()


def put_run(folder, level, steps=1000, data="7,370 flowers", **changes):
    """Write the files of a run of the book preset with the same loss at each step."""
    folder.mkdir()
    config = get_preset("book", **changes)
    parts = [Part(end, 25, config.image_size, level) for end in range(25, steps + 1, 25)]
    write_losses(folder / "losses.csv", parts)
    record = {"config": dataclasses.asdict(config), "data": data, "loss": config.loss}
    record |= {"machine": "", "steps": steps, "seconds": 1.0, "history": []}
    (folder / "run.json").write_text(json.dumps(record))
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


def test_runs_become_the_reference_of_their_preset(reference_file, tmp_path):
    references = read_references(reference_file)
    assert set(references) == {"quick", "book"}  # what was there stays
    book = references["book"]
    assert [run["seed"] for run in book["runs"]] == [0, 1, 2]
    assert [curve.near(1000) for curve in book["curves"]] == pytest.approx([0.2, 0.19, 0.21])
    assert book["data"] == "7,370 flowers" and book["config"]["image_size"] == 64
    assert "| 300 | 0.2000 | 0.1900 to 0.2100 | 3 |\n" in table(book)
    collect([tmp_path / "seed1"], reference_file)  # one run will do
    assert "| 0.1900 to 0.1900 | 1 |" in table(read_references(reference_file)["book"])


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"seed": 1, "learning_rate": 0.1}, "differ in learning_rate"),
        ({"seed": 1, "data": "48 painted flowers"}, "differ in data"),
        ({"seed": 0}, "each needs its own"),
    ],
)
def test_runs_that_differ_in_more_than_their_seed_are_no_reference(tmp_path, changes, words):
    runs = [put_run(tmp_path / "a", 0.2), put_run(tmp_path / "b", 0.2, **changes)]
    with pytest.raises(ValueError, match=words):
        collect(runs, tmp_path / "file.json")
    assert not (tmp_path / "file.json").exists()


def test_a_file_of_another_kind_is_not_taken_for_references(tmp_path):
    run = put_run(tmp_path / "run", 0.2)
    before = (run / "run.json").read_text()
    with pytest.raises(ValueError, match=r"run\.json holds no reference losses"):
        collect([run], run / "run.json")
    assert (run / "run.json").read_text() == before


@pytest.mark.parametrize(
    ("loss", "words"),
    [
        (0.205, "0.2050 after 1,000 steps is within what is normal"),
        (0.225, "within what is normal"),  # above all three, but not by more than they span
        (0.24, "above what is normal, 20% off the reference's mean 0.2000: check the learning"),
        (0.16, "below what is normal, 20% off the reference's mean 0.2000: fine where"),
    ],
)
def test_a_loss_is_called_normal_or_above_or_below(reference_file, tmp_path, loss, words):
    curve = read_curve(put_run(tmp_path / "mine", loss, seed=7, epochs=3))
    (sentence,) = verdict(curve, read_references(reference_file)["book"])
    assert sentence.startswith("mine: ") and words in sentence


@pytest.mark.parametrize(
    ("changes", "note", "end"),
    [
        ({"image_size": 32}, "image_size 32, the reference 64.", "cannot be compared"),
        ({"loss": "mean_squared_error"}, "loss mean_squared_error, the ref", "cannot be compared"),
        ({"objective": "velocity"}, "objective velocity, the ref", "cannot be compared"),
        ({"data": "painted", "steps": 50}, "data painted, the reference 7,370", "near step 100"),
    ],
)
def test_a_loss_of_something_else_is_noted_and_not_compared(
    reference_file, tmp_path, changes, note, end
):
    curve = read_curve(put_run(tmp_path / "mine", 0.2, **changes))
    first, last = verdict(curve, read_references(reference_file)["book"])
    assert note in first and end in last


def test_chance_alone_makes_few_runs_abnormal():
    rng = np.random.default_rng(0)
    for step in (100, 1000):
        deviation = 0.2 * 0.06 / np.sqrt(step / 4)  # the loss, 0.2, of a batch varies by 6%
        abnormal = 0
        for _ in range(2000):
            *three, mine = rng.normal(0.2, deviation, 4)
            low, high = normal_range(step, three)
            abnormal += not low <= mine <= high
        assert abnormal < 20  # 1 in 100


def test_the_command_draws_the_curve_and_gives_the_verdict(call, reference_file, tmp_path):
    figures = []
    for name, loss in (("mine", 0.201), ("yours", 0.3)):
        folder, figure = put_run(tmp_path / name, loss, seed=5), tmp_path / f"{name}.png"
        arguments = folder, "--to", reference_file, "--output", figure
        status, output, _ = call("compare_loss.py", *arguments)
        assert status == 0
        assert f"| runs | {name} |" in output and f"| 3 | {loss:.4f} |" in output
        assert ("within what is normal" in output) == (name == "mine")
        figures.append(np.asarray(Image.open(figure)))
    assert not np.array_equal(*figures)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["nowhere"], "nowhere"),
        (["--preset", "laptop"], "'laptop' yet: compare with those of quick or book"),
        (["--preset", "hug"], "hug"),
        (["--collect", "seed0", "seed0"], "[0]"),
        (["--steps-per-epoch", 0], "'0'"),
        (["damaged"], "run.json is damaged"),
        (["--output", "damaged/run.json"], "run.json"),
    ],
)
def test_a_mistake_is_one_line(call, reference_file, tmp_path, monkeypatch, arguments, words):
    monkeypatch.chdir(tmp_path)
    (put_run(tmp_path / "damaged", 0.2) / "run.json").write_text('{"config": null}')
    options = "--to", reference_file, "--output", "no.png"
    status, _, errors = call("compare_loss.py", *options, *arguments)
    assert status == 2 and not (tmp_path / "no.png").exists()
    assert_one_line(errors, words)


@pytest.mark.parametrize("preset", REFERENCES)
def test_the_references_were_trained_as_the_presets_say(preset):
    reference = REFERENCES[preset]
    config = json.loads(json.dumps(dataclasses.asdict(get_preset(preset))))
    assert not differences({**reference, "config": config}, reference)
    assert "7,370 flowers" in reference["data"] and reference["curves"]


def test_the_page_shows_the_references_as_they_are():
    page = (ROOT / "docs" / "is_my_loss_normal.md").read_text()
    for preset, reference in REFERENCES.items():
        assert f"`{preset}`" in page and table(reference) in page
    assert FILE.relative_to(ROOT).as_posix() in page
    for path in re.findall(r"scripts/\w+\.py", page):
        assert (ROOT / path).is_file()
    for path in re.findall(r"images/\w+\.png", page):
        assert (ROOT / "docs" / path).is_file()
