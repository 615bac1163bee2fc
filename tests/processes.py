"""Run scripts and programs in processes of their own, as a reader does."""

import os
import subprocess
import sys
import time

from conftest import ROOT

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
    ((status, output, errors),) = end([start(command, folder, **environment)], timeout=300)
    assert "Traceback" not in output + errors
    return status, output + errors


def run_script(script, arguments, folder, **environment):
    """Run a script such as "evaluate.py" or "tensorboard.sh" to the end."""
    runner = sys.executable if script.endswith(".py") else "bash"
    return run([runner, SCRIPTS / script, *arguments], folder, **environment)


def start_python(*arguments, **environment):
    """Start Python in the root of the project."""
    return subprocess.Popen(
        [sys.executable, *map(str, arguments)],
        cwd=ROOT,
        env={**os.environ, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def run_python(program, *arguments):
    """Run a Python program, which must not fail; return its output."""
    return python("-c", program, *arguments)


def end(processes, timeout):
    """Return status, output and errors of each; the test fails if one goes on for longer."""
    try:
        outputs = [process.communicate(timeout=timeout) for process in processes]
    finally:
        for process in processes:
            process.kill()
    return [(p.returncode, *output) for p, output in zip(processes, outputs, strict=True)]


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
