"""The environment check: what it says is so, under any Python, whatever is broken."""

import ast
import json
import os
import shutil
import subprocess
import sys
import tomllib
from importlib.metadata import version
from pathlib import Path
from types import SimpleNamespace

import keras
import pytest
from packaging.markers import Marker

from doctor import advice, checks, pins, probe

ROOT = Path(__file__).resolve().parents[2]
BARE = [
    *(ROOT / "scripts" / name for name in ("check_environment.py", "command.py")),
    *(Path(module.__file__) for module in (advice, checks, pins, probe)),
    *(ROOT / "diffusion" / name for name in ("__init__.py", "data/__init__.py", "data/folders.py")),
    *(ROOT / "diffusion/support" / name for name in ("__init__.py", "lazy.py", "precision.py")),
]
FOREIGN = ("KAGGLE_", "KERAS_", "CUDA_", "DATA_DIR", "PRESET", "VENV", "PYTHON")
QUICK_KERAS = """
class backend:
    backend = staticmethod(lambda: "tensorflow")
__version__ = "3.99"
"""
QUICK_TENSORFLOW = """
import os, types
class test:
    is_built_with_cuda = staticmethod(lambda: os.environ["BUILT"] == "cuda")
class config:
    gpu = types.SimpleNamespace(name="GPU:0")
    list_physical_devices = staticmethod(lambda _: [config.gpu] if os.environ["GPU"] else [])
    class experimental:
        get_device_details = staticmethod(lambda gpu: {"device_name": os.environ["GPU"]})
"""


@pytest.fixture
def project(tmp_path):
    """A project of its own, with three pins, and stand-ins that answer for Keras at once."""
    root = tmp_path / "project"
    for source in [*BARE, ROOT / "scripts/download_kaggle_data.sh"]:
        target = root / source.relative_to(ROOT)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(source, target)
    pin(root, f"keras=={version('keras')}", f"tqdm=={version('tqdm')}")
    (tmp_path / "quick").mkdir()
    (tmp_path / "quick/keras.py").write_text(QUICK_KERAS)
    (tmp_path / "quick/tensorflow.py").write_text(QUICK_TENSORFLOW)
    return root


def pin(root, *lines):
    (root / "requirements.txt").write_text("\n".join(["# pins", "-e .", *lines]) + "\n")


def run(root, *arguments, python=(sys.executable,), **changes):
    """Run the check as a reader does; return the finished process."""
    quick = root.parent / "quick"
    clean = {key: value for key, value in os.environ.items() if not key.startswith(FOREIGN)}
    own = {"HOME": str(root.parent / "home"), "PYTHONPATH": str(quick), "GPU": "", "BUILT": "cuda"}
    return subprocess.run(
        [*python, str(root / "scripts/check_environment.py"), *arguments],
        cwd=root,
        env={**clean, **own, **changes},
        capture_output=True,
        text=True,
        timeout=300,
    )


def report(root, *arguments, **options):
    """Run it with --json; return exit status, {check: (mark, text)}, what is next, and stderr."""
    done = run(root, "--json", *arguments, **options)
    answer = json.loads(done.stdout)
    assert answer["ok"] == (done.returncode == 0)
    checks = {check["name"]: (check["mark"], check["text"]) for check in answer["checks"]}
    return done.returncode, checks, answer["next"], done.stderr


def test_where_the_tests_run_the_course_can_run_too():
    backend = keras.backend.backend()
    status, checks, following, errors = report(
        ROOT, "--data-dir", "painted", PYTHONPATH="", KERAS_BACKEND=backend
    )
    assert (status, errors) == (0, "")
    assert checks["Keras"] == ("ok", f"{version('keras')} on {backend}")
    assert checks["Python"][1].split(", ") == [sys.version.split()[0], sys.executable]
    assert checks["Jupyter"] == ("ok", f"JupyterLab {version('jupyterlab')}")
    assert checks["packages"][0] != "missing"
    assert "run DATA_DIR=painted" in following or "--data-dir painted" in following


def test_under_jax_its_own_pins_hold_and_tensorflow_is_not_asked_for(project):
    pin(project, "tensorflow==9.9", "keras==0.1")
    own = "\n".join(["-e .", f"keras=={version('keras')}", "tqdm==0.1", "jax-stand-in==1.0"])
    (project / "requirements-jax.txt").write_text(own)
    status, checks, following, _ = report(project, KERAS_BACKEND="jax")
    assert (status, checks["packages"]) == (
        2,
        (
            "missing",
            "1 of 4 not installed: jax-stand-in; 1 not as pinned in requirements-jax.txt: "
            f"tqdm {version('tqdm')} (pinned: 0.1)",
        ),
    )
    assert following.endswith("python -m pip install -r requirements-jax.txt")
    bare = (sys.executable, "-I", "-S")
    *_, following, _ = report(project, python=bare, KERAS_BACKEND="jax")
    assert following.endswith(
        "-m venv .venv-jax && .venv-jax/bin/python -m pip install -r requirements-jax.txt"
    )
    (project / "requirements-jax.txt").write_text(f"keras=={version('keras')}\n")
    *_, following, _ = report(project, KERAS_BACKEND="jax")
    assert following.endswith("python scripts/train.py")


@pytest.mark.parametrize("file", ["requirements.txt", "requirements-test.txt"])
def test_the_same_package_has_the_same_pin_on_both_backends(file):
    on_jax, other = pins.read_pins(ROOT / "requirements-jax.txt"), pins.read_pins(ROOT / file)
    assert {"jax", "keras", "numpy", "pytest"} <= set(on_jax) and len(on_jax) > 50
    assert not [name for name in on_jax if name.startswith("tensor")]
    both = set(on_jax) & set(other)
    assert {name: on_jax[name] for name in both} == {name: other[name] for name in both}


def test_one_aligned_line_for_each_check_and_then_what_to_type(project):
    done = run(project)
    *lines, blank, following = done.stdout.splitlines()
    assert blank == "" and following.startswith("next: ")
    marks = [line.split()[0] for line in lines]
    assert len(marks) == 11 and set(marks) <= {"ok", "note", "missing"}
    texts = {len(line) - len(line.split(maxsplit=2)[2]) for line in lines}
    assert len(texts) == 1, "the third column is ragged"
    assert done.returncode == 0, done.stderr


# --- packages ---


def test_packages_that_differ_from_the_pins_are_named_and_missing_ones_end_it(project):
    pin(
        project,
        f"keras=={version('keras')}",
        "tqdm==0.1",
        "No_Such.package==1.0 ; python_version >= '3'",
        "of-another-system==1.0 ; sys_platform == 'nowhere'",
    )
    status, checks, following, errors = report(project)
    has = version("tqdm")
    assert checks["packages"] == (
        "missing",
        "1 of 4 not installed: no-such-package; "
        f"1 not as pinned in requirements.txt: tqdm {has} (pinned: 0.1)",
    )
    assert status == 2 and errors == f"error: packages: {checks['packages'][1]}\n"
    assert following.endswith("python -m pip install -r requirements.txt")


def test_other_versions_than_the_pinned_ones_are_a_note_and_no_obstacle(project):
    pin(project, "tqdm==0.1")
    status, checks, _, errors = report(project)
    assert checks["packages"][0] == "note" and "tqdm" in checks["packages"][1]
    assert (status, errors) == (0, "")


def test_the_project_itself_counts_only_where_it_is_installed(project):
    (project / "diffusion_flowers.egg-info").mkdir()  # what building leaves in the project
    (project / "diffusion_flowers.egg-info/PKG-INFO").write_text("Name: diffusion-flowers\n")
    search = [str(project), *sys.path]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "path", search)
        assert "diffusion-flowers" in pins.installed_versions(project)
        patch.setattr(sys, "path", search[:1])
        assert pins.installed_versions(project) == {}


@pytest.mark.parametrize(
    "machine",
    [
        {},
        {"python_full_version": "3.13.2", "python_version": "3.13"},
        {"python_full_version": "3.9.18", "python_version": "3.9"},  # as text above "3.12"
        {"python_full_version": "3.11.5", "sys_platform": "darwin"},
        {"sys_platform": "win32", "os_name": "nt", "implementation_name": "pypy"},
    ],
)
def test_markers_hold_as_the_package_for_them_says(machine, monkeypatch):
    here = pins._variables()
    monkeypatch.setattr(pins, "_variables", lambda: {**here, **machine})
    lines = (ROOT / "requirements.txt").read_text().splitlines()
    markers = {line.partition(";")[2].strip() for line in lines} - {""}
    assert len(markers) > 5
    for marker in markers:
        assert pins.holds(marker) == Marker(marker).evaluate({**here, **machine}), marker


def test_pins_are_kept_where_a_marker_is_beyond_us():
    assert pins.holds("extra in 'a b'") and pins.holds("no marker at all")


# --- other Pythons ---


def test_a_bare_python_is_told_how_to_get_the_packages(project):
    bare = (sys.executable, "-I", "-S")
    status, checks, following, errors = report(project, python=bare)
    assert checks["packages"] == ("missing", "none of the 3 in requirements.txt is installed")
    assert checks["Python"][0] == checks["CPU"][0] == checks["disk"][0] == "ok"
    assert status == 2
    assert errors == f"error: packages: {checks['packages'][1]} (also missing: Keras, Jupyter)\n"
    assert following.startswith("make run") or "-m venv .venv" in following


def test_with_an_environment_already_made_a_bare_python_points_at_it(project):
    (project / ".venv/bin").mkdir(parents=True)
    (project / ".venv/bin/python").touch()
    *_, following, _ = report(project, python=(sys.executable, "-I", "-S"))
    assert following == ".venv/bin/python scripts/check_environment.py"


def old_pythons():
    """Pythons of this machine below 3.11, if any: on PATH, or in pyenv's own folder."""
    versions = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    candidates = [*versions.glob("3.8.*/bin/python"), *versions.glob("3.9.*/bin/python")]
    candidates += [shutil.which(f"python3.{minor}") for minor in (8, 9, 10)]
    for candidate in filter(None, candidates):
        done = subprocess.run([candidate, "--version"], capture_output=True, text=True)
        if done.returncode == 0:
            yield candidate, done.stdout.split()[1]


def test_an_old_python_says_that_it_is_too_old(project):
    python, number = next(old_pythons(), (None, None))
    if python is None:
        pytest.skip("no Python below 3.11 here")
    done = run(project, python=(python,), PYTHONPATH="")
    assert f"Python {number} is too old: use 3.11 to 3.13\n" in done.stdout
    assert done.stderr.startswith(f"error: Python {number} is too old: use 3.11 to 3.13")
    assert done.returncode == 2 and done.stderr.count("\n") == 1
    assert "make run PYTHON=" in done.stdout or "install Python" in done.stdout
    assert "cannot be told" not in done.stdout, "a check needs a newer Python"


@pytest.mark.parametrize("path", BARE, ids=lambda path: path.name)
def test_the_check_is_written_for_old_and_bare_pythons(path):
    tree = ast.parse(path.read_text(), feature_version=(3, 8))
    imported = set()
    for node in tree.body:  # what is imported further in may be more
        if isinstance(node, ast.Import):
            imported |= {name.name for name in node.names}
        elif isinstance(node, ast.ImportFrom):
            imported.add(node.module)
    own = {"command", "diffusion", "doctor.checks"}
    assert {name.split(".")[0] for name in imported - own} <= sys.stdlib_module_names


def test_the_pythons_that_will_do_are_those_of_the_package():
    text = (ROOT / "pyproject.toml").read_text()
    oldest, newest = checks.OLDEST, checks.NEWEST
    expected = f">={oldest[0]}.{oldest[1]},<{newest[0]}.{newest[1] + 1}"
    assert tomllib.loads(text)["project"]["requires-python"] == expected


# --- Keras and the GPU ---


@pytest.mark.parametrize(
    ("code", "text"),
    [
        ("import os; os.abort()", "does not run: it crashes with SIGABRT"),
        ("raise ImportError('libcuda\\nis cracked')", "does not run: is cracked"),
        ("", "does not run: AttributeError: module 'keras' has no attribute 'backend'"),
    ],
)
def test_a_broken_keras_is_one_line_of_the_report(project, code, text):
    (project.parent / "quick/keras.py").write_text(code)
    status, checks, following, errors = report(project)
    assert checks["Keras"] == ("missing", text)
    assert (status, errors) == (2, f"error: Keras: {text}\n")
    assert following.endswith("-m pip install --force-reinstall -r requirements.txt")


def test_a_keras_that_hangs_is_left_after_a_while(project, monkeypatch):
    (project.parent / "quick/keras.py").write_text("import time; time.sleep(60)")
    monkeypatch.setenv("PYTHONPATH", str(project.parent / "quick"))
    monkeypatch.delenv("KERAS_BACKEND", raising=False)
    assert probe.ask_keras(0.3) == (None, "does not run: no answer within 0.3 seconds")


INSTALL = f"{sys.executable} -m pip install 'tensorflow[and-cuda]==9.9'"


@pytest.mark.skipif(os.name == "nt", reason="the stand-in is a shell script")
@pytest.mark.parametrize(
    ("driver", "machine", "expected"),
    [
        (None, {}, "note none: no NVIDIA driver (nvidia-smi is not on PATH); the CPU computes"),
        ("echo no devices; exit 6", {}, "note none: nvidia-smi finds no GPU (no devices)"),
        ("echo H1; echo H2", {"GPU": "H1"}, "ok H1, seen by tensorflow"),
        (
            "echo H1; echo H2",
            {},
            f"note H1, H2, but tensorflow does not see it: no CUDA libraries: {INSTALL}",
        ),
        ("echo H1", {"BUILT": ""}, f"does not see it: it was built for CPUs: {INSTALL}"),
        ("echo H1", {"CUDA_VISIBLE_DEVICES": "-1"}, "CUDA_VISIBLE_DEVICES='-1' hides it"),
    ],
)
def test_the_gpu_is_named_or_why_there_is_none(project, driver, machine, expected):
    folder = project.parent / "bin"
    folder.mkdir()
    if driver:
        (folder / "nvidia-smi").write_text(f"#!/bin/sh\n{driver}\n")
        (folder / "nvidia-smi").chmod(0o755)
    pin(project, "tensorflow==9.9")
    _, checks, *_ = report(project, PATH=str(folder), **machine)
    assert expected in " ".join(checks["GPU"])


# --- data, models, room, credentials ---


def add_pictures(folder, count):
    folder.mkdir(parents=True)
    for number in range(count):
        (folder / f"{number}.jpg").touch()


def test_the_flowers_found_are_counted_and_none_are_painted_ones(project):
    add_pictures(project / "data/cache/flowers-64", 4)
    mark, text = checks.check_data(project, None)[1:]
    assert mark == "note" and "painted flowers will be used" in text and "make data" in text
    add_pictures(project / "data/oxford/dataset/train/1", 3)
    add_pictures(project / "data/oxford/dataset/valid/1", 2)
    (project / "data/oxford/dataset/train/1/notes.txt").touch()
    expected = ("ok", "5 pictures in data/oxford/dataset")
    assert checks.check_data(project, None)[1:] == expected
    _, checks, *_ = report(project, DATA_DIR="data/oxford/dataset/valid")
    assert checks["data"] == ("ok", "2 pictures in data/oxford/dataset")
    _, checks, *_ = report(project, DATA_DIR="")  # as make hands it on where it is not set
    assert checks["data"] == expected


def test_a_folder_without_flowers_is_an_obstacle(project):
    status, checks, following, errors = report(project, "--data-dir", "nowhere")
    assert checks["data"][0] == "missing" and str(project / "nowhere") in checks["data"][1]
    assert status == 2 and errors.startswith("error: data: no images under ")
    assert following == "make data"


def test_trained_models_are_named_and_empty_folders_are_none(project):
    assert checks.check_models(project).mark == "note"
    for name in ("quick-painted", "empty"):
        (project / "models" / name).mkdir(parents=True)
    (project / "models/quick-painted/model.keras").touch()
    assert checks.check_models(project)[1:] == ("ok", "quick-painted")


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
def test_free_space_is_held_against_what_is_still_to_come(
    project, monkeypatch, free, packages, flowers, mark
):
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=free * 1e9))
    finding = checks.check_disk(project, packages, flowers)
    assert finding.mark == mark and f"{free} GB free" in finding.text
    assert ("3 GB" in finding.text, "1 GB" in finding.text) == (packages, flowers)


def test_little_memory_is_a_note_that_names_a_smaller_preset(monkeypatch):
    sizes = {"SC_PAGE_SIZE": 1000, "SC_PHYS_PAGES": 2_000_000}
    monkeypatch.setattr(os, "sysconf", sizes.get)
    assert checks.check_memory().mark == "note"
    assert "2.0 GB" in checks.check_memory().text
    assert "PRESET=quick" in checks.check_memory().text


@pytest.mark.parametrize("flag", ["avx512_bf16", "amx_bf16", None])
def test_the_cpu_line_says_which_number_format_is_fast(monkeypatch, flag):
    monkeypatch.setattr("diffusion.support.precision.cpu_flags", lambda: {"avx2", flag})
    text = checks.check_cpu().text
    assert (f"bfloat16 is fast here ({flag})" if flag else "float32 is fastest here") in text


def test_credentials_are_found_and_never_printed(project):
    if shutil.which("bash") is None:
        pytest.skip("no bash")
    without = run(project)
    done = run(project, KAGGLE_USERNAME="flora-ann", KAGGLE_KEY="0123secret")
    assert "no credentials" in without.stdout and "credentials found" in done.stdout
    assert "flora-ann" not in done.stdout + done.stderr
    assert "0123secret" not in done.stdout + done.stderr


def test_a_check_that_fails_says_so_in_its_own_line(project):
    (project / "requirements.txt").unlink()
    finding = checks.check_packages(project)
    assert finding.mark == "note"
    assert finding.text.startswith("cannot be told (FileNotFoundError")
