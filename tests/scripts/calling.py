"""Call a command line in this process, or run it in its own."""

import importlib
import subprocess
import sys

import pytest
from conftest import ROOT

sys.path.insert(0, str(ROOT / "scripts"))

import command


def module_of(script):
    """The module of a script such as "evaluate.py"."""
    return importlib.import_module(script.removesuffix(".py"))


def call(script, arguments, monkeypatch, capsys):
    """Call `main` of a script such as "evaluate.py" here: (status, its output, its errors)."""
    monkeypatch.setattr(sys, "argv", [script, *map(str, arguments)])
    with pytest.raises(SystemExit) as stopped:
        command.run(module_of(script).main)
    return stopped.value.code or 0, *capsys.readouterr()


def run(script, *arguments, **environment):
    """Run a script in a process of its own."""
    runner = sys.executable if script.endswith(".py") else "bash"
    line = [runner, ROOT / "scripts" / script, *arguments]
    return subprocess.run(
        [*map(str, line)], capture_output=True, text=True, timeout=120, env=environment or None
    )


def assert_one_line(errors, words):
    """Assert that standard error holds one line, an error with these words."""
    assert errors.startswith("error: ") and words in errors
    assert errors.count("\n") == 1
