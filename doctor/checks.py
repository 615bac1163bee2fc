"""What this machine has for the course, and what is missing.

It runs where nothing is installed yet and under Pythons too old for the rest of the library: only
the standard library is imported, in the syntax of Python 3.8. (`diffusion.support.precision` and
`diffusion.data.folders`, which it asks too, keep to that as well.)
"""

import functools
import os
import platform
import shlex
import shutil
import sys
from collections import namedtuple
from pathlib import Path

from doctor import pins, probe

OK, NOTE, MISSING = "ok", "note", "missing"
OLDEST, NEWEST = (3, 11), (3, 13)
GB = 1e9
ENVIRONMENT_SIZE, FLOWERS_SIZE = 3 * GB, 1 * GB  # on the disk, with room to unpack
BOOK_MEMORY = 4 * GB  # what training the chapter's model takes
WITH_GPU = {"tensorflow": "tensorflow[and-cuda]", "jax": "jax[cuda12]"}

Finding = namedtuple("Finding", "name mark text")
Finding.__doc__ = (
    "A line of the report; its mark is OK, NOTE (the course runs) or MISSING (it cannot)."
)


def examine(root, data_dir=None, patience=120):
    """Examine the project at `root` on this machine; return the `Finding`s, one a line.

    data_dir: the flowers' folder, "painted", or None for what is under the project's `data/`.
    patience: seconds for Keras to answer. A check that fails says so in its own line.
    """
    root = Path(root)
    packages, data = check_packages(root), check_data(root, data_dir)
    keras, trouble = probe.ask_keras(patience)
    return [
        check_python(),
        packages,
        check_keras(keras, trouble),
        check_jupyter(root),
        check_cpu(),
        check_memory(),
        check_gpu(root, keras),
        check_disk(
            root, packages.mark == MISSING and not venv_of(root).exists(), data.mark == NOTE
        ),
        data,
        check_kaggle(root),
        check_models(root),
    ]


def check(name):
    """Make a function that returns (mark, text) return a `Finding`, whatever happens in it."""

    def decorate(examine_one):
        @functools.wraps(examine_one)
        def guarded(*arguments):
            try:
                mark, text = examine_one(*arguments)
            except Exception as error:  # a machine where anything may be broken is the purpose
                mark, text = NOTE, f"cannot be told ({type(error).__name__}: {error})"
            return Finding(name, mark, " ".join(text.split()))

        return guarded

    return decorate


@check("Python")
def check_python():
    """Is this a Python that the pinned packages exist for?"""
    version = sys.version_info[:2]
    if OLDEST <= version <= NEWEST:
        return OK, f"{platform.python_version()}, {sys.executable}"
    fault = "old" if version < OLDEST else "new"
    oldest, newest = (".".join(map(str, bound)) for bound in (OLDEST, NEWEST))
    return MISSING, f"Python {platform.python_version()} is too {fault}: use {oldest} to {newest}"


@check("packages")
def check_packages(root):
    """Is what the requirements pin installed, in these versions?"""
    file = pins.requirements_file()
    pinned = pins.read_pins(root / file)
    missing, different = pins.compare(pinned, pins.installed_versions(root))
    if len(missing) == len(pinned):
        return MISSING, f"none of the {len(pinned)} in {file} is installed"
    texts = []
    if missing:
        texts.append(f"{len(missing)} of {len(pinned)} not installed: {_some(missing)}")
    if different:
        changes = [f"{name} {has} (pinned: {pin})" for name, has, pin in different]
        texts.append(f"{len(changes)} not as pinned in {file}: {_some(changes)}")
    mark = MISSING if missing else NOTE if different else OK
    return mark, "; ".join(texts) or f"{len(pinned)}, as pinned in {file}"


@check("Keras")
def check_keras(keras, trouble):
    """Does Keras run, and on which backend?"""
    if keras is None:
        return MISSING, trouble
    return OK, f"{keras.version} on {keras.backend}"


@check("Jupyter")
def check_jupyter(root):
    """Can notebooks be opened and executed?"""
    installed = pins.installed_versions(root)
    if "jupyterlab" in installed and "ipykernel" in installed:
        return OK, f"JupyterLab {installed['jupyterlab']}"
    return MISSING, "not installed: the notebooks need jupyterlab and ipykernel"


@check("CPU")
def check_cpu():
    """How many cores, and in which number format are they fast?"""
    from diffusion.support.precision import BFLOAT16_FLAGS, cpu_cores, cpu_flags

    cores = cpu_cores()
    flags = sorted(BFLOAT16_FLAGS & cpu_flags())
    speed = f"bfloat16 is fast here ({', '.join(flags)})" if flags else "float32 is fastest here"
    return OK, f"{cores} core{'s' if cores > 1 else ''}; {speed}"


@check("memory")
def check_memory():
    """Is there enough for the chapter's model?"""
    if not hasattr(os, "sysconf"):
        return NOTE, "cannot be told on this system"
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if memory < BOOK_MEMORY:
        return NOTE, f"{memory / GB:.1f} GB: too little for PRESET=book, enough for PRESET=quick"
    return OK, f"{memory / GB:.1f} GB"


@check("GPU")
def check_gpu(root, keras):
    """Which GPU computes; or why none does, and what would change that."""
    if keras and keras.gpus:
        return OK, f"{', '.join(keras.gpus)}, seen by {keras.backend}"
    driver = shutil.which("nvidia-smi")
    if driver is None:
        return NOTE, "none: no NVIDIA driver (nvidia-smi is not on PATH); the CPU computes"
    asked = probe.run([driver, "--query-gpu=name", "--format=csv,noheader"], 20)
    if asked.returncode != 0 or not asked.stdout.strip():
        answer = probe.last_line(asked.stdout) or probe.last_line(asked.stderr)
        return NOTE, f"none: nvidia-smi finds no GPU ({answer}); the CPU computes"
    names = ", ".join(asked.stdout.strip().splitlines())
    if keras is None:
        return NOTE, f"{names}; whether it can be used shows once Keras runs"
    return NOTE, f"{names}, but {keras.backend} does not see it: {_why_unseen(root, keras)}"


def _why_unseen(root, keras):
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None and visible.strip() in ("", "-1"):
        return f"CUDA_VISIBLE_DEVICES={visible!r} hides it"
    pin = pins.read_pins(root / pins.requirements_file()).get(keras.backend)
    wanted = WITH_GPU.get(keras.backend, keras.backend) + (f"=={pin}" if pin else "")
    why = "no CUDA libraries" if keras.built_with_cuda else "it was built for CPUs"
    return f"{why}: {shlex.quote(sys.executable)} -m pip install '{wanted}'"


@check("disk")
def check_disk(root, needs_environment, needs_flowers):
    """Is there room for what is still to come?"""
    free = shutil.disk_usage(str(root)).free
    needed, text = 0, f"{free / GB:.1f} GB free"
    if needs_environment:
        needed += ENVIRONMENT_SIZE
        text += f"; the packages need {ENVIRONMENT_SIZE / GB:.0f} GB"
    if needs_flowers:
        needed += FLOWERS_SIZE
        text += f"; 'make data' needs {FLOWERS_SIZE / GB:.0f} GB"
    if needs_environment and free < ENVIRONMENT_SIZE:
        return MISSING, text
    return OK if free >= needed else NOTE, text


@check("data")
def check_data(root, data_dir):
    """Which flowers will be used?"""
    from diffusion.data.folders import ADVICE, find_sets

    if data_dir == "painted":
        return OK, "painted flowers, as asked for"
    folder = Path(os.path.abspath(os.path.expanduser(str(data_dir or root / "data"))))
    sets = find_sets(folder, skip=[root / "data" / "cache"])
    if sets:
        _, place, pictures = sets[0]
        return OK, f"{len(pictures):,} pictures in {short(place, root)}"
    if data_dir is None:
        return NOTE, "no photographs: painted flowers will be used ('make data' brings real ones)"
    return MISSING, f"no images under {data_dir}: {ADVICE}"


@check("Kaggle")
def check_kaggle(root):
    """Are there credentials? What they are is nobody's business here."""
    script = root / "scripts" / "download_kaggle_data.sh"  # knows all the places
    if shutil.which("bash") is None or not script.is_file():
        return NOTE, f"cannot be told without bash and {short(script, root)}"
    if probe.run(["bash", str(script), "--check"], 20).returncode == 0:
        return OK, "credentials found: 'make data' takes the flowers from there"
    return NOTE, "no credentials, and none needed: 'make data' takes the flowers from Oxford"


@check("models")
def check_models(root):
    """Which models have been trained?"""
    names = sorted(
        path.parent.name
        for path in Path(os.environ.get("MODELS_DIR") or root / "models").glob("*/model.keras")
    )
    if names:
        return OK, _some(names)
    return NOTE, "none yet: 'make run' trains a small one"


def venv_of(root):
    """Where the Makefile keeps the course's own Python."""
    return root / os.environ.get("VENV", ".venv")


def short(path, root):
    """A path as one would type it in the project's folder."""
    inside = os.path.relpath(str(path), str(root))
    return str(path) if inside.startswith("..") else inside


def _some(names, most=5):
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
