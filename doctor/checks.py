"""Check what this machine has for the course and what is missing.

This runs before anything is installed and under Pythons too old for the library, so it imports
only the standard library and keeps to the syntax of Python 3.8. The modules of `diffusion` that it
imports do the same.
"""

import importlib.util
import json
import os
import platform
import shlex
import shutil
import signal
import subprocess
import sys
import zipfile
from collections import namedtuple
from pathlib import Path

OK, NOTE, MISSING = "ok", "note", "missing"
OLDEST, NEWEST = (3, 11), (3, 13)
ENVIRONMENT_SIZE, FLOWERS_SIZE = 3, 1  # GB on disk, with room to unpack
WITH_GPU = {"tensorflow": "tensorflow[and-cuda]", "jax": "jax[cuda12]"}
ON_JAX = os.environ.get("KERAS_BACKEND") == "jax"
REQUIREMENTS = "requirements-jax.txt" if ON_JAX else "requirements.txt"

Finding = namedtuple("Finding", "name mark text")
Finding.__doc__ = "A line of the report: its mark is OK, NOTE (the course runs) or MISSING."
Keras = namedtuple("Keras", "version backend backend_version gpus built_with_cuda")

_PROBE = """
import importlib, json, keras
name = keras.backend.backend()
backend, gpus, built_with_cuda = importlib.import_module(name), [], None
if name == "tensorflow":
    built_with_cuda = backend.test.is_built_with_cuda()
    for gpu in backend.config.list_physical_devices("GPU"):
        details = backend.config.experimental.get_device_details(gpu)
        gpus.append(details.get("device_name", gpu.name))
elif name == "jax":
    gpus = [device.device_kind for device in backend.devices() if device.platform != "cpu"]
print(json.dumps([keras.__version__, name, backend.__version__, gpus, built_with_cuda]))
"""


def examine(root, data_dir=None) -> list:
    """Examine this machine for the project at `root`; return a list of `Finding`s.

    data_dir: the flowers' folder, "painted", or None for what is under the project's `data/`.
    A check that fails reports its own failure and never stops the others.
    """
    root, (keras, trouble) = Path(root), probe_keras()
    about = (OK, f"{keras.version} on {keras.backend}") if keras else (MISSING, trouble)
    findings = [
        _finding("Python", check_python),
        _finding("packages", check_packages, root),
        Finding("Keras", *about),
        _finding("GPU", check_gpu, keras),
        _finding("data", check_data, root, data_dir),
        _finding("preset", check_preset),
        _finding("models", check_models, root),
    ]
    marks = {finding.name: finding.mark for finding in findings}
    to_install = marks["packages"] == MISSING and not venv_of(root).exists()
    return [*findings, _finding("disk", check_disk, root, to_install, marks["data"] == NOTE)]


def _finding(name, check, *arguments):
    try:
        mark, text = check(*arguments)
    except Exception as error:  # anything may be broken on a machine that needs this check
        mark, text = NOTE, f"unknown ({type(error).__name__}: {error})"
    return Finding(name, mark, " ".join(text.split()))


def check_python() -> tuple:
    """Check that the pinned packages exist for this Python."""
    if OLDEST <= sys.version_info[:2] <= NEWEST:
        return OK, f"{platform.python_version()}, {sys.executable}"
    fault = "old" if sys.version_info[:2] < OLDEST else "new"
    oldest, newest = (".".join(map(str, bound)) for bound in (OLDEST, NEWEST))
    return MISSING, f"{platform.python_version()} is too {fault}: use {oldest} to {newest}"


def check_packages(root: Path) -> tuple:
    """Compare what is installed with the pins."""
    if importlib.util.find_spec("packaging") is None:  # one of the pins: so none is installed
        return MISSING, f"{REQUIREMENTS} is not installed"
    from importlib.metadata import distributions

    from packaging.requirements import Requirement
    from packaging.utils import canonicalize_name as normal

    # Building the project leaves a folder in it that looks like an installed package.
    search = [path for path in sys.path if Path(path).resolve() != root.resolve()]
    installed = {}
    for package in distributions(path=search):
        if package.metadata["Name"]:  # a package half removed has none
            installed.setdefault(normal(package.metadata["Name"]), package.version)
    lines = (root / REQUIREMENTS).read_text(encoding="utf-8").splitlines()
    pins = [Requirement(line) for line in lines if "==" in line and not line.startswith("#")]
    pins = [pin for pin in pins if pin.marker is None or pin.marker.evaluate()]
    pins += [Requirement("diffusion-flowers")] if "-e ." in lines else []
    missing = [pin.name for pin in pins if normal(pin.name) not in installed]
    other = [
        f"{pin.name} {installed[normal(pin.name)]} (pinned: {pin.specifier})"
        for pin in pins
        if pin.name not in missing and not pin.specifier.contains(installed[normal(pin.name)], True)
    ]
    texts = [f"{len(missing)} of {len(pins)} not installed: {_some(missing)}"] if missing else []
    texts += [f"{len(other)} not as pinned in {REQUIREMENTS}: {_some(other)}"] if other else []
    mark = MISSING if missing else NOTE if other else OK
    return mark, "; ".join(texts) or f"{len(pins)}, as pinned in {REQUIREMENTS}"


def check_gpu(keras) -> tuple:
    """Name the GPU that Keras uses, or say why it uses none and what would change that."""
    if keras and keras.gpus:
        return OK, f"{', '.join(keras.gpus)}, seen by {keras.backend}"
    driver = shutil.which("nvidia-smi")
    if driver is None:
        return NOTE, "none: no NVIDIA driver (nvidia-smi is not on PATH); the CPU computes"
    listed = run([driver, "--query-gpu=name", "--format=csv,noheader"], 20)
    if listed.returncode != 0 or not listed.stdout.strip():
        answer = last_line(listed.stdout) or last_line(listed.stderr)
        return NOTE, f"none: nvidia-smi finds no GPU ({answer}); the CPU computes"
    names = ", ".join(listed.stdout.strip().splitlines())
    if not keras:
        return NOTE, f"{names}; install the packages to see whether Keras can use it"
    visible = os.environ.get("CUDA_VISIBLE_DEVICES", "0")
    if visible.strip() in ("", "-1"):
        why = f"CUDA_VISIBLE_DEVICES={visible!r} hides it"
    else:
        wanted = f"{WITH_GPU.get(keras.backend, keras.backend)}=={keras.backend_version}"
        why = "it finds no CUDA libraries" if keras.built_with_cuda else "it was built for CPUs"
        why += f": {shlex.quote(sys.executable)} -m pip install '{wanted}'"
    return NOTE, f"{names}, but {keras.backend} does not see it: {why}"


def check_data(root: Path, data_dir) -> tuple:
    """Say which flowers will be used, and whether the loader accepts the records beside them."""
    from diffusion.data.folders import ADVICE, check_records, find_sets

    if data_dir == "painted":
        return OK, "painted flowers, as requested"
    folder = Path(os.path.abspath(os.path.expanduser(str(data_dir or root / "data"))))
    sets, remarks = find_sets(folder, skip=[root / "data" / "cache"])
    if sets:
        _, place, pictures = sets[0]
        try:
            check_records(place)
        except ValueError as error:
            return MISSING, str(error)
        return OK, "; ".join([f"{len(pictures):,} pictures in {short(place, root)}", *remarks])
    if data_dir is None:
        return NOTE, "no photographs: painted flowers will be used ('make data' fetches real ones)"
    return MISSING, f"no images under {data_dir}: {ADVICE}"


def check_preset() -> tuple:
    """Check the environment's PRESET, as make passes it on."""
    from diffusion.training.config import PRESETS

    name = os.environ.get("PRESET") or "quick"
    if name not in PRESETS:
        return MISSING, f"PRESET={name}: no such preset; choose one of {', '.join(PRESETS)}"
    return OK, name


def check_models(root: Path) -> tuple:
    """Check the environment's MODEL; list the models that ship and those trained here."""
    wanted = os.environ.get("MODEL")
    if wanted:  # a relative path counts from the project's folder, as in the notebooks
        path = root / wanted / "model.keras" if (root / wanted).is_dir() else root / wanted
        if not path.is_file():
            return MISSING, f"MODEL={wanted}: no model there; name a .keras file or a run's folder"
        if not zipfile.is_zipfile(str(path)):
            return MISSING, f"MODEL={wanted}: {short(path, root)} is not a .keras file"
    shipped = sorted((root / "models").glob("flowers-*.keras"))
    runs = Path(os.environ.get("MODELS_DIR") or root / "models").glob("*/model.keras")
    names = [f"{wanted} (MODEL)"] if wanted else []
    names += [f"{path.stem} (ships with the course)" for path in shipped]
    names += sorted(path.parent.name for path in runs)
    return (OK, _some(names)) if names else (NOTE, "none: 'make run' trains a small one")


def check_disk(root: Path, to_install: bool, to_download: bool) -> tuple:
    """Check that the disk has room for what is still to be installed and downloaded."""
    free = shutil.disk_usage(str(root)).free / 1e9
    needed = ENVIRONMENT_SIZE * to_install + FLOWERS_SIZE * to_download
    text = f"{free:.1f} GB free"
    text += f"; the packages need {ENVIRONMENT_SIZE} GB" if to_install else ""
    text += f"; 'make data' needs {FLOWERS_SIZE} GB" if to_download else ""
    if to_install and free < ENVIRONMENT_SIZE:
        return MISSING, text
    return OK if free >= needed else NOTE, text


def probe_keras(patience: float = 120) -> tuple:
    """Start Keras in a process of its own; return (`Keras`, None), or (None, why it fails).

    patience: in seconds; a cold start of TensorFlow may take ten.
    """
    if importlib.util.find_spec("keras") is None:
        return None, "not installed"
    done = run([sys.executable, "-c", _PROBE], patience)
    if done.returncode == 0:
        try:
            return Keras(*json.loads(last_line(done.stdout))), None
        except (TypeError, ValueError):
            pass
    trouble = last_line(done.stderr) or f"exit status {done.returncode}"
    if done.returncode < 0:  # TensorFlow's wheel on a processor without AVX, for example
        trouble = f"it crashes with {signal.Signals(-done.returncode).name}"
    if "KERAS_BACKEND" in os.environ:
        trouble += f" (KERAS_BACKEND={os.environ['KERAS_BACKEND']})"
    return None, f"does not run: {trouble}"


def run(command: list, patience: float) -> subprocess.CompletedProcess:
    """Run a command for at most `patience` seconds; a timeout is exit status 124."""
    try:
        text: dict = {"encoding": "utf-8", "errors": "replace", "stdin": subprocess.DEVNULL}
        return subprocess.run(command, capture_output=True, timeout=patience, check=False, **text)
    except subprocess.TimeoutExpired:
        return subprocess.CompletedProcess(command, 124, "", f"no answer within {patience:g} s")
    except OSError as error:
        return subprocess.CompletedProcess(command, 126, "", str(error))


def last_line(text: str) -> str:
    """Return the last line that is not blank, or ""."""
    return text.strip().splitlines()[-1].strip() if text.strip() else ""


def venv_of(root: Path) -> Path:
    """Return the folder of the environment that the Makefile uses."""
    return root / os.environ.get("VENV", ".venv")


def short(path, root: Path) -> str:
    """Return a path as one would type it in the project's folder."""
    inside = os.path.relpath(str(path), str(root))
    return str(path) if inside.startswith("..") else inside


def _some(names, most=5):
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
