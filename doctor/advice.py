"""What to type next, after `doctor.checks` has looked around: one command.

Like that module, it needs no package and runs under old Pythons.
"""

import os
import shlex
import shutil
import sys
from pathlib import Path

from doctor import pins, probe
from doctor.checks import MISSING, NEWEST, OLDEST, short, venv_of


def what_next(findings, root, data_dir=None):
    """What to type next in the project's folder: what removes the first obstacle, if there is one.

    findings: from `environment.examine`, of the project at `root`, with the same data_dir.
    """
    root = Path(root)
    missing = {finding.name for finding in findings if finding.mark == MISSING}
    venv = venv_of(root)
    inside = Path(sys.prefix).resolve() == venv.resolve()
    python = shlex.quote(short(sys.executable, root))
    to_install = missing & {"Python", "packages", "Keras", "Jupyter"}
    if to_install and not inside and (venv / "bin" / "python").exists():
        return f"{shlex.quote(short(venv, root))}/bin/python scripts/check_environment.py"
    if "Python" in missing:
        return _set_up(_fitting_python())
    if "disk" in missing:
        return "free some space on this disk, then run this again"
    if to_install == {"Keras"} and "KERAS_BACKEND" in os.environ:
        return "unset KERAS_BACKEND, then run this again"
    if to_install and sys.prefix != sys.base_prefix:
        again = " --force-reinstall" if to_install == {"Keras"} else ""
        return f"{python} -m pip install{again} -r {pins.requirements_file()}"
    if to_install:
        return _set_up(sys.executable)
    if "data" in missing:
        return "make data"
    option = f" --data-dir {shlex.quote(data_dir)}" if data_dir else ""
    if _on_jax():  # notebook 04 derives its step in TensorFlow
        return f"{python} scripts/train.py{option}"
    if inside and shutil.which("make"):
        return "make run" + (f" DATA_DIR={shlex.quote(data_dir)}" if data_dir else "")
    return f"{python} scripts/run_notebooks.py{option}"


def _on_jax():
    return pins.requirements_file() != "requirements.txt"


def _set_up(python):
    """The command that makes the course's own environment, by `python`, and goes on from there."""
    if python is None:
        return "install Python 3.13 from https://www.python.org/downloads, then run this with it"
    if _on_jax() or not shutil.which("make"):
        venv = ".venv-jax" if _on_jax() else ".venv"
        install = f"{venv}/bin/python -m pip install -r {pins.requirements_file()}"
        return f"{python} -m venv {venv} && {install}"
    usual = shutil.which("python3")
    is_usual = usual and os.path.realpath(usual) == os.path.realpath(python)
    return "make run" if is_usual else f"make run PYTHON={shlex.quote(python)}"


def _fitting_python():
    """Another Python of this machine, of a version that will do; None if it has none."""
    for minor in range(OLDEST[1], NEWEST[1] + 1):
        name = f"python3.{minor}"
        # pyenv leaves commands for Pythons that it then refuses to start
        if shutil.which(name) and probe.run([name, "-c", ""], 20).returncode == 0:
            return name
    return None
