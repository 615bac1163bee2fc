"""Run scripts and programs in processes of their own, as a reader does."""

import os
import subprocess
import sys
import time

from conftest import ROOT

SCRIPTS = ROOT / "scripts"


def start(command, folder, **environment):
    """Start a process in a session of its own, so that Ctrl-C reaches all of it.

    It runs in `folder / "home"`, which is its home too, and without credentials.
    """
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
    output, errors = process.communicate(timeout=120)
    assert "Traceback" not in output + errors
    return process.returncode, output + errors


def run_script(script, arguments, folder, **environment):
    """Run a script such as "evaluate.py" or "tensorboard.sh" to the end."""
    runner = sys.executable if script.endswith(".py") else "bash"
    return run([runner, SCRIPTS / script, *arguments], folder, **environment)


def run_python(program, *arguments, **environment):
    """Run a Python program, which must not fail; return its output."""
    finished = subprocess.run(
        [sys.executable, "-c", program, *map(str, arguments)],
        cwd=ROOT,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert finished.returncode == 0, finished.stderr[-2000:]
    return finished.stdout


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


def assert_one_line(errors, words):
    """Assert that this is one line, an error with these words."""
    assert errors.startswith("error: ") and words in errors
    assert errors.count("\n") == 1
