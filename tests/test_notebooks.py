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

FIGURES = {
    "01_flowers": [2],
    "02_forward_diffusion": [3, 4, 5],
    "03_unet": [8, 9, 10, 11],
    "04_training": [7, 12, 14],
    "05_sampling": [6, 13, 15],
    "06_interpolation": [16],
}
BEYOND = ["07_ddpm", "08_variational_bound", "09_samplers", "10_evaluation"]
ALL = [*FIGURES, *BEYOND]


def path_of(name):
    folder = ROOT / "notebooks" / ("beyond" if name in BEYOND else "")
    return folder / f"{name}.ipynb"


def read(name):
    return nbformat.read(path_of(name), as_version=4)


def figures_of(name):
    """Names of the figures: the chapter's by their numbers, the others' as the cells save them."""
    if name in FIGURES:
        return [f"fig_8_{number:02d}" for number in FIGURES[name]]
    sources = "\n".join(cell.source for cell in read(name).cells)
    return sorted(set(re.findall(r'save_figure\(\s*\w+,\s*"(fig_\w+)"', sources)))


def test_together_they_draw_all_figures_of_the_chapter():
    numbers = [number for figures in FIGURES.values() for number in figures]
    assert sorted(numbers) == list(range(2, 17))
    assert sorted(p.stem for p in (ROOT / "notebooks").glob("*.ipynb")) == sorted(FIGURES)
    assert sorted(p.stem for p in (ROOT / "notebooks/beyond").glob("*.ipynb")) == BEYOND
    assert all(figures_of(name) for name in BEYOND)


@pytest.mark.slow
@pytest.mark.parametrize("name", ALL)
def test_a_notebook_runs_alone_in_a_fresh_kernel_and_draws_its_figures(name, trained, tmp_path):
    if name == "04_training" and not ON_TENSORFLOW:
        pytest.skip("it derives the training step with TensorFlow's gradient tape")
    figures, executed = tmp_path / "figures", tmp_path / "notebooks"
    options = ["--preset", "tiny", "--model", trained.folder, "--data-dir", "painted"]
    options += ["--output", executed, "--figures", figures, path_of(name)]
    printed = python("scripts/run_notebooks.py", *options, MODELS_DIR=str(tmp_path / "models"))
    drawn = sorted(path.name for path in figures.glob("*.png"))
    assert drawn == [f"{figure}.png" for figure in figures_of(name)]
    for number in FIGURES.get(name, []):
        assert f"8-{number} " in printed
    notebook = nbformat.read(executed / f"{name}.ipynb", as_version=4)
    assert all(cell.execution_count for cell in notebook.cells if is_code(cell))


@pytest.mark.parametrize("name", ALL)
def test_a_notebook_is_committed_executed_small_and_without_errors_or_private_paths(name):
    notebook = read(name)
    text = nbformat.writes(notebook)
    assert len(text) < 2_000_000 and len(notebook.cells) <= 50
    assert str(ROOT) not in text
    assert all(figure in text for figure in figures_of(name))
    for cell in filter(is_code, notebook.cells):
        assert len(cell.source.splitlines()) <= 25, cell.source
        assert cell.execution_count, f"never run: {cell.source}"
        assert not [o for o in cell.outputs if o.output_type == "error"]


@pytest.mark.parametrize("name", ALL)
def test_the_sources_in_a_committed_notebook_are_those_of_the_library(name):
    """`utils.show_source` puts a file's name and a piece of the file into the output."""
    shown = [
        output.data["text/markdown"]
        for cell in filter(is_code, read(name).cells)
        for output in cell.outputs
        if "```python" in output.get("data", {}).get("text/markdown", "")
    ]
    assert shown
    for revealed in shown:
        parts = re.fullmatch(r"`(.+)`\n```python\n(.*)\n```", revealed, re.DOTALL)
        file, source = parts.groups()
        lines = [line.strip() for line in (ROOT / file).read_text().splitlines()]
        piece = "\n".join(line.strip() for line in source.splitlines())
        assert f"\n{piece}\n" in "\n".join(["", *lines, ""]), (
            f"execute {name} again: {file} has changed"
        )


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
    cell = nbformat.read(tmp_path / "out/import.ipynb", as_version=4).cells[0]
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
