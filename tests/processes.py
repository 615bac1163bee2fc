"""Run scripts as a reader does: as processes, from another folder, without credentials."""

import os
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SCRIPTS = ROOT / "scripts"


def python(*arguments, **environment):
    """Run Python in the project's folder, assert that it succeeds, and return what it prints."""
    done = subprocess.run(
        [sys.executable, *map(str, arguments)],
        cwd=ROOT,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def start(command, folder, **environment):
    """Start a process in a session of its own, so that Ctrl-C reaches all of it."""
    home = folder / "home"
    home.mkdir(exist_ok=True)
    clean = {key: value for key, value in os.environ.items() if not key.startswith("KAGGLE_")}
    return subprocess.Popen(
        [str(word) for word in command],
        cwd=home,
        env={**clean, "HOME": str(home), **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def run(command, folder, **environment):
    """Run to the end; return the exit code and all output."""
    process = start(command, folder, **environment)
    output, errors = process.communicate(timeout=30)
    assert "Traceback" not in output + errors
    return process.returncode, output + errors


def wait_for(condition):
    for _ in range(2000):
        if condition():
            return
        time.sleep(0.01)
    raise AssertionError("it did not happen within 20 s")


def stop(process, number):
    """Send a signal to the process and all its children, as a terminal does."""
    os.killpg(process.pid, number)
    output, errors = process.communicate(timeout=30)
    return process.returncode, output + errors
