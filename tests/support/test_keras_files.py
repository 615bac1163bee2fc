"""Model files: old ones load in a new process, damaged and foreign ones are refused in one line."""

import importlib
import io
import re
import sys
import zipfile

import keras
import pytest
from conftest import ROOT
from processes import python

from diffusion.evaluation.encoder import load_encoder
from diffusion.support import keras_files
from diffusion.support.keras_files import load_keras_file, read_config
from diffusion.training.building import load_model

BEFORE_THE_MOVE = ROOT / "tests" / "files" / "before_the_move"
PLAIN = BEFORE_THE_MOVE / "plain" / "model.keras"
REGISTERING = [
    ".".join(path.relative_to(ROOT).with_suffix("").parts)
    for path in sorted((ROOT / "diffusion").rglob("*.py"))
    if "@keras.saving.register_keras_serializable" in path.read_text()
]

NEW_PROCESS = """
import pathlib, sys
from diffusion.evaluation import load_encoder
load_encoder()
assert not [name for name in sys.modules if name.startswith("diffusion.training")]
from diffusion import load_model  # registers every class
import keras
import numpy as np
missing = set(sys.argv[3:]) - set(sys.modules) - {"diffusion.evaluation.metrics"}
assert not missing, missing
keras.saving.load_model("models/flowers-64.keras")
for folder in pathlib.Path("tests/files/before_the_move").iterdir():
    images = load_model(folder).generate(2, steps=3, seed=0)
    if keras.backend.backend() == "tensorflow":
        np.testing.assert_allclose(images, np.load(folder / "pictures.npy"), atol=1e-4)
    print(folder.name)
try:
    load_model(sys.argv[1])
except ValueError as error:
    print(error)
sys.path.append(sys.argv[2])
import my_schedules
print(type(load_model(sys.argv[1]).schedule).__name__)
"""

MY_SCHEDULES = """
import keras
from diffusion.schedules import CosineSchedule

@keras.saving.register_keras_serializable(package="mine")
class MySchedule(CosineSchedule):
    pass
"""


@pytest.fixture
def with_my_schedule(tmp_path, monkeypatch):
    """The file of a model with a user's own schedule, and the folder of the schedule's module."""
    modules = tmp_path / "modules"
    modules.mkdir()
    (modules / "my_schedules.py").write_text(MY_SCHEDULES)
    monkeypatch.syspath_prepend(modules)
    model = load_model(PLAIN)
    model.schedule = importlib.import_module("my_schedules").MySchedule()
    model.save(tmp_path / "mine.keras")
    monkeypatch.delitem(sys.modules, "my_schedules")
    monkeypatch.delitem(keras.saving.get_custom_objects(), "mine>MySchedule")
    return tmp_path / "mine.keras", modules


@pytest.mark.slow
def test_in_a_new_process_one_import_loads_every_file(with_my_schedule):
    printed = python("-c", NEW_PROCESS, *with_my_schedule, *REGISTERING)
    *loaded, refused, schedule = printed.splitlines()
    assert sorted(loaded) == ["beyond", "chain", "plain"] and schedule == "MySchedule"
    assert "my_schedules.MySchedule" in refused and "import my_schedules" in refused


def test_a_class_of_an_encoder_or_of_a_cell_is_named_too(tmp_path):
    class Mine(keras.layers.ReLU):
        pass

    network = keras.Sequential([keras.Input((2,)), Mine()])
    network.save(tmp_path / "mine.keras")
    with pytest.raises(ValueError, match=r"needs.*Mine"):
        load_encoder(tmp_path / "mine.keras")


def test_a_function_that_is_not_registered_is_named_and_keras_own_are_not(tmp_path):
    @keras.saving.register_keras_serializable(package="mine")
    def my_loss(y, predicted):
        return keras.ops.mean(y - predicted)

    network = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1, activation="relu")])
    network.compile(loss=my_loss)
    network.save(tmp_path / "mine.keras")
    del keras.saving.get_custom_objects()["mine>my_loss"]
    with pytest.raises(ValueError, match="needs mine>my_loss"):
        load_keras_file(tmp_path / "mine.keras", "a model")


def archive(**parts):
    """The bytes of a zip archive with these parts, by default those of a model."""
    names = {"config": "config.json", "metadata": "metadata.json", "weights": "model.weights.h5"}
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as file:
        for part, name in names.items():
            if (content := parts.get(part, "{}")) is not None:
                file.writestr(name, content)
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (PLAIN.read_bytes()[:30_000], "damaged or incomplete.*copy it again"),
        (b"A text, not a model.\n" * 9, "not a model"),
        (PLAIN.read_bytes()[:100_000] + bytes(2000) + PLAIN.read_bytes()[102_000:], "damaged"),
        (b"", "not a model"),
        (archive(weights=None), "model.weights.h5"),
        (archive(config=b'{"a": ' + b"[" * 100_000 + b"]" * 100_000 + b"}"), "nested"),
        (archive(config=b" " * 300_001), "more than 300,000 bytes"),
        (archive(metadata=b" " * 300_001), "more than 300,000 bytes"),
        (archive(config="[]"), "no JSON object"),
        (archive(config='{"class_name": "Functional"'), "damaged"),
        (archive(), "not a model of this library"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
@pytest.mark.parametrize("load", [load_model, load_encoder])
def test_what_is_no_model_is_refused_in_one_line(load, content, words, tmp_path, monkeypatch):
    monkeypatch.setattr(keras_files, "MOST_BYTES", 300_000)
    path = tmp_path / "model.keras"
    path.write_bytes(content)
    if load is load_encoder:
        words = words.replace("a model of this library", "an encoder")
    with pytest.raises(ValueError, match=words) as error:
        load(path)
    assert str(path) in str(error.value) and "\n" not in str(error.value)


def test_brackets_in_texts_are_not_nesting(tmp_path):
    path = tmp_path / "model.keras"
    path.write_bytes(archive(config=r'{"a": "' + "[" * 500 + r'\"[[\\"}'))
    assert read_config(path)["a"].startswith("[[")
    with pytest.raises(ValueError, match=re.escape(str(tmp_path / "model.h5"))):
        read_config(tmp_path / "model.h5")
