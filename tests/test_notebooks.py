"""Every notebook runs alone in a fresh kernel, with the tiny preset, and draws its figures."""

import functools
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import nbformat
import pytest
from conftest import ON_TENSORFLOW, ROOT
from processes import python

sys.path.insert(0, str(ROOT / "scripts"))

import run_notebooks

SCRIPT = [sys.executable, ROOT / "scripts" / "run_notebooks.py"]

NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
NOTEBOOKS += sorted((ROOT / "notebooks/beyond").glob("*.ipynb"))
each_notebook = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


def read(path):
    return nbformat.read(path, as_version=4)


def figures_of(path):
    """Names of the figures that a notebook saves: fig_8_03 is the chapter's figure 8-3."""
    sources = "\n".join(cell.source for cell in read(path).cells)
    return sorted(set(re.findall(r'save_figure\(\s*\w+,\s*"(fig_\w+)"', sources)))


def test_together_they_draw_all_figures_of_the_chapter():
    figures = [figures_of(path) for path in NOTEBOOKS]
    chapter = {figure for each in figures for figure in each if figure.startswith("fig_8_")}
    assert chapter == {f"fig_8_{number:02d}" for number in range(2, 17)} and len(figures) >= 10


@pytest.mark.slow
@each_notebook
def test_a_notebook_runs_alone_in_a_fresh_kernel_and_draws_its_figures(path, trained, tmp_path):
    if path.stem == "04_training" and not ON_TENSORFLOW:
        pytest.skip("it derives the training step with TensorFlow's gradient tape")
    figures, executed = tmp_path / "figures", tmp_path / "notebooks"
    options = ["--preset", "tiny", "--model", trained.folder, "--data-dir", "painted"]
    options += ["--output", executed, "--figures", figures, path]
    printed = python("scripts/run_notebooks.py", *options, MODELS_DIR=str(tmp_path / "models"))
    drawn = sorted(path.name for path in figures.glob("*.png"))
    assert drawn == [f"{figure}.png" for figure in figures_of(path)]
    for number in re.findall(r"fig_8_0?(\d+)", " ".join(drawn)):
        assert f"8-{number} " in printed
    assert all(cell.execution_count for cell in read(executed / path.name).cells if is_code(cell))


@each_notebook
def test_a_notebook_is_committed_executed_small_and_without_errors_or_private_paths(path):
    notebook = read(path)
    text = nbformat.writes(notebook)
    assert len(text) < 2_000_000 and len(notebook.cells) <= 50
    assert str(ROOT) not in text
    assert all(figure in text for figure in figures_of(path))
    for cell in filter(is_code, notebook.cells):
        assert len(cell.source.splitlines()) <= 25, cell.source
        assert cell.execution_count, f"never run: {cell.source}"
        assert not [o for o in cell.outputs if o.output_type == "error"]


@each_notebook
def test_the_sources_in_a_committed_notebook_are_those_of_the_library(path):
    """`utils.show_source` puts a file's name and a piece of the file into the output."""
    shown = [
        output.data["text/markdown"]
        for cell in filter(is_code, read(path).cells)
        for output in cell.outputs
        if "```python" in output.get("data", {}).get("text/markdown", "")
    ]
    assert shown
    for revealed in shown:
        parts = re.fullmatch(r"`(.+)`\n```python\n(.*)\n```", revealed, re.DOTALL)
        file, source = parts.groups()
        lines = [line.strip() for line in (ROOT / file).read_text().splitlines()]
        piece = "\n".join(line.strip() for line in source.splitlines())
        assert f"\n{piece}\n" in "\n".join(["", *lines, ""]), f"execute {path} again: see {file}"


def is_code(cell):
    return cell.cell_type == "code" and cell.source.strip()


# --- the script ---


def write_notebook(path, *sources):
    cells = [nbformat.v4.new_code_cell(source) for source in sources]
    nbformat.write(nbformat.v4.new_notebook(cells=cells), path)
    return path


@pytest.fixture
def refused(refusal, monkeypatch, tmp_path):
    """A function that runs the script in this process and returns its error, one line."""
    for name in ("PRESET", "DATA_DIR", "MODEL", "FIGURES_DIR", "PYTHONPATH"):
        monkeypatch.setenv(name, "")
    folders = ["--output", tmp_path / "out", "--figures", tmp_path / "figures"]
    main = functools.partial(run_notebooks.command.run, run_notebooks.main)
    return functools.partial(refusal, main, *folders)


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (["--preset", "huge"], "huge"),
        (["--preset", ""], "''"),
        (["--data-dir", "nowhere"], "nowhere"),
        (["--model", "nowhere"], "nowhere"),
        (["no.ipynb"], "no.ipynb"),
        (["--output", ROOT / "notebooks"], "what is read"),
    ],
)
def test_bad_arguments_are_named_in_one_line(refused, arguments, word):
    assert word in refused(*arguments)


@pytest.mark.parametrize(
    "content", [b"no JSON", b"[1]", b"{}", b'{"nbformat": 4, "cells": 3}', b"\xff\xfe\x00"]
)
def test_a_file_that_is_no_notebook_is_named_in_one_line(refused, tmp_path, content):
    (tmp_path / "broken.ipynb").write_bytes(content)
    assert "broken.ipynb is not a notebook" in refused(tmp_path / "broken.ipynb")


def test_figures_are_listed_in_the_order_of_their_numbers(capsys):
    names = ["fig_8_10", "fig_8_02", "fig_9_samplers", "fig_8_08"]
    run_notebooks.print_table([(name, "notebook", Path(name), 1.0) for name in names])
    head, *lines, count = capsys.readouterr().out.splitlines()
    titles = [line.split()[0] for line in lines]
    assert titles == ["8-2", "8-8", "8-10", "fig_9_samplers"] and count == "4 figures"
    assert len({line.index("notebook") for line in [head, *lines]}) == 1


@pytest.mark.slow
def test_a_failing_notebook_ends_in_one_line_and_is_left_as_it_was(tmp_path):
    path = write_notebook(tmp_path / "broken.ipynb", "1 / 0")
    empty, before = write_notebook(tmp_path / "empty.ipynb"), path.read_bytes()
    options = ["--in-place", "--figures", tmp_path / "figures"]
    finished = subprocess.run([*SCRIPT, *options, empty, path], capture_output=True, text=True)
    assert finished.returncode == 2 and path.read_bytes() == before
    assert finished.stderr.startswith("error: broken.ipynb") and "ZeroDivision" in finished.stderr
    assert finished.stderr.count("\n") == 1


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="POSIX signals")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_cell_may_save_its_work_and_its_kernel_ends(tmp_path, number):
    started, saved = tmp_path / "kernel", tmp_path / "saved"
    work = (
        f"import os, time\nopen({str(started)!r}, 'w').write(f'{{os.getpid()}} ')\n"
        f"try:\n    time.sleep(100)\nfinally:\n    open({str(saved)!r}, 'w').close()"
    )
    path = write_notebook(tmp_path / "long.ipynb", work)
    folders = ["--output", tmp_path / "out", "--figures", tmp_path / "figures"]
    process = subprocess.Popen([*SCRIPT, *folders, path], stderr=subprocess.PIPE, text=True)
    while not (started.is_file() and started.read_text()) and process.poll() is None:
        time.sleep(0.1)
    process.send_signal(number)
    _, errors = process.communicate(timeout=60)
    assert (process.returncode, errors.strip()) == (130, "stopped") and saved.exists()
    with pytest.raises(ProcessLookupError):
        os.kill(int(started.read_text()), 0)


@pytest.mark.slow
def test_notebooks_find_utils_where_the_project_is_not_installed(tmp_path):
    path = write_notebook(tmp_path / "import.ipynb", "import sys\nprint(sys.path)")
    folders = ["--output", tmp_path / "out", "--figures", tmp_path / "figures"]
    python("scripts/run_notebooks.py", *folders, path, PYTHONPATH=str(tmp_path))
    cell = read(tmp_path / "out/import.ipynb").cells[0]
    search = cell.outputs[0].text
    assert search.index(repr(str(ROOT))) < search.index(repr(str(tmp_path))) < search.index("site-")


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("make") is None, reason="no make")
def test_make_lab_works_for_root_and_says_so(tmp_path):
    (tmp_path / "bin").mkdir()
    (tmp_path / ".installed").touch()
    (tmp_path / "bin/jupyter").write_text("#!/bin/sh\necho jupyter $@\n")
    (tmp_path / "bin/jupyter").chmod(0o755)
    os.utime(tmp_path / ".installed", (2**31, 2**31))  # newer than the pins
    command = ["make", "--no-print-directory", "lab", f"VENV={tmp_path}"]
    printed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert ("You are root" in printed) == printed.endswith(" --allow-root\n") == (os.getuid() == 0)
