"""Choose the one command to type next from what `doctor.checks` has found.

Like that module, this needs no package and runs under old Pythons.
"""

import os
import shlex
import shutil
import sys
from importlib.util import find_spec
from pathlib import Path

from doctor.checks import MISSING, NEWEST, OLDEST, ON_JAX, REQUIREMENTS, run, short, venv_of


def what_next(findings: list, root, data_dir=None) -> str:
    """Return the command that removes the first obstacle, or that starts the course.

    findings, root, data_dir: as in `checks.examine`. The command is for the project's folder.
    """
    root = Path(root)
    missing = {finding.name for finding in findings if finding.mark == MISSING}
    to_install = missing & {"Python", "packages", "Keras"}
    venv = venv_of(root)
    inside = Path(sys.prefix).resolve() == venv.resolve()
    python = shlex.quote(short(sys.executable, root))
    if to_install and not inside and (venv / "bin" / "python").exists():
        return f"{shlex.quote(short(venv, root))}/bin/python scripts/check_environment.py"
    if "Python" in missing:
        return _set_up(_suitable_python())
    if "disk" in missing:
        return "free some space on this disk, then run this again"
    if to_install and "KERAS_BACKEND" not in os.environ and _only_jax():
        return "export KERAS_BACKEND=jax, then run this again"
    if to_install == {"Keras"} and "KERAS_BACKEND" in os.environ:
        return "unset KERAS_BACKEND, then run this again"
    if to_install and sys.prefix != sys.base_prefix:
        again = " --force-reinstall" if to_install == {"Keras"} else ""
        return f"{python} -m pip install{again} -r {REQUIREMENTS}"
    if to_install:
        return _set_up(sys.executable)
    if "data" in missing:
        return "make data"
    for name, variable in (("preset", "PRESET"), ("models", "MODEL")):
        if name in missing:
            return f"unset or correct {variable}, then run this again"
    option = f" --data-dir {shlex.quote(data_dir)}" if data_dir else ""
    if ON_JAX:  # notebook 04 derives its step in TensorFlow
        return f"{python} scripts/train.py{option}"
    if inside and shutil.which("make"):
        return "make run" + (f" DATA_DIR={shlex.quote(data_dir)}" if data_dir else "")
    return f"{python} scripts/run_notebooks.py{option}"


def _only_jax():
    return find_spec("jax") is not None and find_spec("tensorflow") is None


def _set_up(python):
    """Return the command that makes the course's own environment with `python`."""
    if python is None:
        return "install Python 3.13 from https://www.python.org/downloads, then run this with it"
    if ON_JAX or not shutil.which("make"):
        venv = ".venv-jax" if ON_JAX else ".venv"
        return f"{python} -m venv {venv} && {venv}/bin/python -m pip install -r {REQUIREMENTS}"
    usual = shutil.which("python3")
    is_usual = usual and os.path.realpath(usual) == os.path.realpath(python)
    return "make run" if is_usual else f"make run PYTHON={shlex.quote(python)}"


def _suitable_python():
    """Return the command of another Python that would do, or None."""
    for minor in range(OLDEST[1], NEWEST[1] + 1):
        name = f"python3.{minor}"
        # pyenv leaves commands for Pythons that it then refuses to start
        if shutil.which(name) and run([name, "-c", ""], 20).returncode == 0:
            return name
    return None
