"""The environment check: what it reports is true, under any Python, whatever is broken."""

import ast
import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from importlib.metadata import version
from pathlib import Path
from types import SimpleNamespace

import keras
import pytest
from conftest import ROOT

from doctor import checks, next_step
from doctor.checks import Finding

BARE = (
    *("scripts/check_environment.py", "scripts/command.py"),
    *("doctor/__init__.py", "doctor/checks.py", "doctor/next_step.py"),
    *(f"diffusion/{name}.py" for name in ("__init__", "data/__init__", "data/folders")),
    *(f"diffusion/{name}.py" for name in ("support/__init__", "support/lazy")),
    *(f"diffusion/{name}.py" for name in ("training/__init__", "training/config")),
)


@pytest.fixture(autouse=True)
def plain_environment(monkeypatch):
    for name in list(os.environ):
        if name.startswith(("CUDA_", "DATA_DIR", "KAGGLE_", "MODEL", "PRESET", "VENV")):
            monkeypatch.delenv(name)


def run(*arguments, python=(sys.executable,), **environment):
    """Run the check as a reader does."""
    return subprocess.run(
        [*python, ROOT / "scripts/check_environment.py", *arguments],
        env={**os.environ, "PYTHONPATH": "", **environment},
        capture_output=True,
        text=True,
        timeout=300,
    )


@pytest.mark.slow
def test_the_course_can_run_where_its_tests_run():
    backend = keras.backend.backend()
    done = run("--data-dir", "painted", "--json", KERAS_BACKEND=backend)
    assert (done.returncode, done.stderr) == (0, "")
    report = json.loads(done.stdout)
    found = {check["name"]: check["text"] for check in report["checks"] if check["mark"] == "ok"}
    assert found["Keras"] == f"{version('keras')} on {backend}"
    assert sys.executable in found["Python"] and "flowers-64 (ships" in found["models"]
    assert "painted" in report["next"]


@pytest.mark.slow
def test_a_bare_python_is_told_how_to_get_the_packages():
    done = run(python=(sys.executable, "-I", "-S"), VENV="no-such-folder")
    assert done.returncode == 2 and done.stderr.count("\n") == 1
    assert "requirements" in done.stderr and "also missing: Keras" in done.stderr
    *lines, blank, following = done.stdout.splitlines()
    assert blank == "" and ("make run" in following or "-m venv" in following)
    assert "unknown (" not in done.stdout
    texts = {len(line) - len(line.split(maxsplit=2)[2]) for line in lines}
    assert len(texts) == 1, "the third column is ragged"


@pytest.mark.slow
def test_an_old_python_says_that_it_is_too_old():
    names = [f"python3.{minor}" for minor in (8, 9, 10)]  # or any that pyenv keeps
    names += sorted(Path.home().glob(".pyenv/versions/3.[89].*/bin/python"))
    for python in filter(None, map(shutil.which, names)):
        if subprocess.run([python, "-c", ""], capture_output=True).returncode == 0:
            break
    else:
        pytest.skip("no Python below 3.11 here")
    done = run(python=(python,), VENV="no-such-folder")
    assert done.returncode == 2 and done.stderr.count("\n") == 1
    assert "is too old: use 3.11 to 3.13" in done.stderr
    assert re.search("next.*: (make run PYTHON=|install Python|.* -m venv )", done.stdout)
    assert "unknown (" not in done.stdout, "a check needs a newer Python"


@pytest.mark.parametrize("path", BARE)
def test_the_check_is_written_for_old_and_bare_pythons(path):
    tree = ast.parse((ROOT / path).read_text(), feature_version=(3, 8))
    imported = set()
    for node in tree.body:  # functions may import more
        if isinstance(node, ast.Import):
            imported |= {name.name for name in node.names}
        elif isinstance(node, ast.ImportFrom):
            imported.add(node.module)
    known = sys.stdlib_module_names | {"command", "diffusion", "doctor"}
    assert {name.split(".")[0] for name in imported} <= known


def test_the_suitable_pythons_are_those_of_the_package():
    (_, oldest), (_, newest) = checks.OLDEST, checks.NEWEST
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["requires-python"] == f">=3.{oldest},<3.{newest + 1}"


def test_a_check_that_fails_says_so_in_its_own_line(tmp_path):
    finding = checks._finding("packages", checks.check_packages, tmp_path)
    assert finding.mark == "note" and "FileNotFoundError" in finding.text


def test_missing_packages_are_named_and_so_are_other_versions(tmp_path):
    pins = (
        f"keras=={version('keras')}",
        "tqdm==0.1",
        "No_Such.package==1.0 ; python_version >= '3'",
        "of-another-system==1.0 ; sys_platform == 'nowhere'",
    )
    file = tmp_path / checks.REQUIREMENTS
    file.write_text("\n".join(pins))
    mark, text = checks.check_packages(tmp_path)
    assert mark == "missing" and "1 of 3 not installed: No_Such.package;" in text
    assert f"tqdm {version('tqdm')} (pinned: ==0.1)" in text
    file.write_text("\n".join(pins[:2]))
    assert checks.check_packages(tmp_path)[0] == "note"
    file.write_text(pins[0])
    assert checks.check_packages(tmp_path)[0] == "ok"


def test_the_project_itself_counts_only_where_it_is_installed(tmp_path, monkeypatch):
    (tmp_path / checks.REQUIREMENTS).write_text("-e .\n")
    (tmp_path / "diffusion_flowers.egg-info").mkdir()  # what building leaves in the project
    (tmp_path / "diffusion_flowers.egg-info/PKG-INFO").write_text("Name: diffusion-flowers\n")
    monkeypatch.setattr(checks.sys, "path", [str(tmp_path)])
    assert checks.check_packages(tmp_path)[0] == "missing"
    (tmp_path / "elsewhere").mkdir()
    shutil.copy(tmp_path / checks.REQUIREMENTS, tmp_path / "elsewhere")
    assert checks.check_packages(tmp_path / "elsewhere")[0] == "ok"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("code", "trouble"),
    [
        ("import os; os.abort()", "it crashes with SIGABRT"),
        ("raise ImportError('libcuda\\nis cracked')", "is cracked"),
        ("", "has no attribute 'backend'"),
        ("import time; time.sleep(60)", "no answer within 1 s"),
    ],
)
def test_a_broken_keras_is_one_line_of_the_report(tmp_path, monkeypatch, code, trouble):
    (tmp_path / "keras.py").write_text(code)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    keras, text = checks.probe_keras(patience=1)
    assert keras is None and text.startswith("does not run") and trouble in text


@pytest.mark.parametrize(
    ("driver", "gpus", "cuda", "visible", "mark", "words"),
    [
        (None, [], True, None, "note", "nvidia-smi is not on PATH"),
        ((6, "no devices"), [], True, None, "note", "no GPU .no devices."),
        ((0, "H1\nH2"), ["H1"], True, None, "ok", "H1, seen by tensorflow"),
        ((0, "H1\nH2"), [], True, None, "note", "H1, H2, but tensorflow does not see it: it finds"),
        ((0, "H1"), [], False, None, "note", "CPUs: .* 'tensorflow.and-cuda.==9.9'"),
        ((0, "H1"), [], True, "-1", "note", "CUDA_VISIBLE_DEVICES='-1' hides it"),
    ],
)
def test_the_gpu_is_named_or_why_there_is_none(
    monkeypatch, driver, gpus, cuda, visible, mark, words
):
    monkeypatch.setattr(checks.shutil, "which", lambda _: driver and "nvidia-smi")
    done = driver and SimpleNamespace(returncode=driver[0], stdout=driver[1], stderr="")
    monkeypatch.setattr(checks, "run", lambda *_: done)
    if visible:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    found = checks.check_gpu(checks.Keras("3.99", "tensorflow", "9.9", gpus, cuda))
    assert found[0] == mark
    assert re.search(words, found[1])


def add_pictures(folder, count):
    folder.mkdir(parents=True)
    for number in range(count):
        (folder / f"{number}.jpg").touch()


def test_the_flowers_found_are_counted_and_without_any_they_are_painted(tmp_path):
    add_pictures(tmp_path / "data/cache/flowers-64", 4)
    mark, text = checks.check_data(tmp_path, None)
    assert mark == "note" and "painted" in text and "make data" in text
    add_pictures(tmp_path / "data/oxford/dataset/train/1", 3)
    add_pictures(tmp_path / "data/oxford/dataset/valid/1", 2)
    (tmp_path / "data/oxford/dataset/train/1/notes.txt").touch()
    assert checks.check_data(tmp_path, None) == ("ok", "5 pictures in data/oxford/dataset")
    mark, text = checks.check_data(tmp_path, str(tmp_path / "nowhere"))
    assert mark == "missing" and "nowhere" in text


def test_flowers_whose_records_the_loader_refuses_are_an_obstacle(tmp_path):
    add_pictures(tmp_path / "data/dataset/train/1", 3)
    (tmp_path / "data/dataset/cat_to_name.json").write_text("[1, 2")
    mark, text = checks.check_data(tmp_path, None)
    assert mark == "missing" and "cat_to_name.json" in text


def test_the_models_that_ship_and_the_trained_ones_are_named(tmp_path):
    assert checks.check_models(tmp_path)[0] == "note"
    for name in ("quick-painted", "empty"):
        (tmp_path / "models" / name).mkdir(parents=True)
    (tmp_path / "models/quick-painted/model.keras").touch()
    assert checks.check_models(tmp_path) == ("ok", "quick-painted")
    assert "flowers-64 (ships" in checks.check_models(ROOT)[1]


@pytest.mark.parametrize(
    ("variable", "value", "mark"),
    [
        ("MODEL", "models/flowers-64.keras", "ok"),
        ("MODEL", "models/flowers-64.json", "missing"),
        ("MODEL", "nowhere", "missing"),
        ("PRESET", "", "ok"),
        ("PRESET", "book", "ok"),
        ("PRESET", "huge", "missing"),
    ],
)
def test_a_wrong_preset_or_model_is_an_obstacle(monkeypatch, variable, value, mark):
    monkeypatch.setenv(variable, value)
    found = checks.check_preset() if variable == "PRESET" else checks.check_models(ROOT)
    assert found[0] == mark and value in found[1]


@pytest.mark.parametrize(
    ("free", "packages", "flowers", "mark"),
    [
        (2.9, True, False, "missing"),
        (3.5, True, True, "note"),
        (4.1, True, True, "ok"),
        (0.9, False, True, "note"),
        (0.9, False, False, "ok"),
    ],
)
def test_free_space_is_compared_with_what_is_still_to_come(
    monkeypatch, free, packages, flowers, mark
):
    monkeypatch.setattr(checks.shutil, "disk_usage", lambda _: SimpleNamespace(free=free * 1e9))
    found = checks.check_disk(ROOT, packages, flowers)
    assert found[0] == mark and f"{free} GB free" in found[1]
    assert ("3 GB" in found[1], "1 GB" in found[1]) == (packages, flowers)


@pytest.mark.parametrize(
    ("missing", "expected"),
    [
        (["packages", "Keras"], "-m pip install -r requirements"),
        (["Keras"], "-m pip install --force-reinstall -r requirements"),
        (["disk", "data"], "free some space"),
        (["data", "preset"], "make data"),
        (["preset", "models"], "PRESET"),
        (["models"], "MODEL"),
        ([], "scripts/"),
    ],
)
def test_the_next_command_removes_the_first_obstacle(tmp_path, monkeypatch, missing, expected):
    monkeypatch.setattr(next_step.sys, "prefix", str(tmp_path / "another-venv"))
    monkeypatch.delenv("KERAS_BACKEND", raising=False)
    monkeypatch.setattr(next_step, "find_spec", lambda name: name)
    findings = [Finding(name, "missing", "") for name in missing]
    assert expected in next_step.what_next(findings, tmp_path)


def test_an_environment_already_made_is_used_and_a_broken_backend_unset(tmp_path, monkeypatch):
    def following(name):
        return next_step.what_next([Finding(name, "missing", "")], tmp_path)

    monkeypatch.setenv("KERAS_BACKEND", "torch")
    assert "unset KERAS_BACKEND" in following("Keras")
    monkeypatch.delenv("KERAS_BACKEND")
    monkeypatch.setattr(next_step, "find_spec", {"jax": "found"}.get)
    assert "KERAS_BACKEND=jax" in following("Keras")
    (tmp_path / ".venv/bin").mkdir(parents=True)
    (tmp_path / ".venv/bin/python").touch()
    assert following("Python") == ".venv/bin/python scripts/check_environment.py"


def test_under_jax_its_own_environment_is_made(monkeypatch, tmp_path):
    monkeypatch.setattr(next_step, "ON_JAX", True)
    monkeypatch.setattr(next_step, "REQUIREMENTS", "requirements-jax.txt")
    assert next_step._set_up("py") == (
        "py -m venv .venv-jax && .venv-jax/bin/python -m pip install -r requirements-jax.txt"
    )
    assert "scripts/train.py" in next_step.what_next([], tmp_path)
