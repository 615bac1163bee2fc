"""A record is checked when it is read, and tells whether a run may be resumed."""

import dataclasses
import json
import shutil

import keras
import pytest
from conftest import ROOT
from processes import run_python

from diffusion.training.config import get_preset
from diffusion.training.loop import train
from diffusion.training.record import load_record, new_record

BEFORE_THE_MOVE = ROOT / "tests" / "files" / "before_the_move"
GOOD = json.loads((BEFORE_THE_MOVE / "plain" / "run.json").read_text())


@pytest.mark.parametrize(
    "content",
    [
        *("", "3", "null", "[]", "{}", "[" * 100_000, b"\xff"),
        {name: value for name, value in GOOD.items() if name != "machine"},
        *({**GOOD, "config": config} for config in (None, "tiny", {}, [])),
        *({**GOOD, "config": GOOD["config"] | wrong} for wrong in ({"epochs": "2"}, {"ema": 2})),
        *({**GOOD, "history": history} for history in (None, [1], [{"epoch": 1}])),
        *({**GOOD, name: True} for name in ("steps", "seconds", "data", "loss", "fingerprint")),
    ],
)
def test_a_damaged_record_is_named(content, tmp_path):
    path = tmp_path / "run.json"
    content = json.dumps(content) if isinstance(content, dict) else content
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(ValueError, match=r"run\.json is damaged .*: correct it"):
        load_record(path)


def test_a_run_with_a_damaged_record_is_refused_before_its_model_is_loaded(tiny, painted, tmp_path):
    (tmp_path / "model.keras").write_text("never looked at")
    (tmp_path / "run.json").write_text("[]")
    with pytest.raises(ValueError, match=r"run\.json"):
        train(tiny, painted, tmp_path, resume=True)
    (tmp_path / "run.json").unlink()
    with pytest.raises(FileNotFoundError, match=r"run\.json"):
        train(tiny, painted, tmp_path, resume=True)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"batch_size": 4}, "batch_size=8, not 4"),
        ({"widths": (8, 24)}, "widths"),
        ({"seed": 3}, "seed=0"),
        ({"labels": True}, "labels=False, not True"),
        ({"network": "modern_unet"}, "network=unet, not modern_unet"),
    ],
)
def test_a_run_is_not_resumed_with_other_numbers(trained, painted, changes, words):
    with pytest.raises(ValueError, match=words):
        train(get_preset("tiny", **changes), painted, trained.folder, resume=True)


def test_a_run_is_not_resumed_on_other_data(trained, painted, tiny, tmp_path):
    others = dataclasses.replace(painted, description="48 photographs")
    with pytest.raises(ValueError, match=r"48 painted flowers.*not on 48 photographs"):
        train(tiny, others, trained.folder, resume=True)
    folder = shutil.copytree(trained.folder, tmp_path / "run")
    record = load_record(folder / "run.json")
    (folder / "run.json").write_text(json.dumps({**record, "fingerprint": "of others"}))
    painted = dataclasses.replace(painted, fingerprint="of these")
    with pytest.raises(ValueError, match=r"other pictures.*of others"):
        train(tiny, painted, folder, resume=True)
    record.pop("fingerprint", None)  # an older record is believed, and completed
    (folder / "run.json").write_text(json.dumps(record))
    assert train(tiny, painted, folder, resume=True).record["fingerprint"] == "of these"
    assert new_record(tiny, painted)["fingerprint"] == "of these"


def test_a_run_is_not_resumed_on_flowers_of_other_names(named, painted):
    names = (*painted.class_names[:2], "weed", *painted.class_names[3:])
    others = dataclasses.replace(painted, class_names=names)
    words = f"'{painted.class_names[2]}' there is 'weed' here: use the same data"
    with pytest.raises(ValueError, match=words):
        train(get_preset("tiny", labels=True), others, named.folder, resume=True)


RESUME = """
import shutil, sys
import numpy as np
from pathlib import Path
from diffusion.data.flowers import load_flowers
from diffusion.training import Config, train
from diffusion.training.record import load_record

folder = Path(sys.argv[1])
flowers = load_flowers("painted", 16, painted=16, cache_dir=folder / "cache", progress=False)
for name in ("plain", "beyond"):
    config = load_record(folder / name / "run.json")["config"]
    model = train(Config(**config), flowers, folder / name, resume=True).model
    images = model.generate(2, 3, seed=0)
    if sys.argv[2] == "tensorflow":  # JAX draws other noise from the seed
        np.testing.assert_allclose(images, np.load(folder / name / "pictures.npy"), atol=1e-4)
    config["epochs"] = 2
    run = train(Config(**config), flowers, folder / name, resume=True, sample_every=0, verbose=0)
    assert [entry["steps"] for entry in run.record["history"]] == [2, 4]
"""


@pytest.mark.slow
def test_runs_made_before_the_move_resume_and_generate_what_they_did(tmp_path):
    for name in ("plain", "beyond"):
        shutil.copytree(BEFORE_THE_MOVE / name, tmp_path / name)
    run_python(RESUME, tmp_path, keras.backend.backend())
