"""Every notebook, alone in a fresh kernel, with the tiny preset: it runs, and draws its figures."""

import os
import re
import subprocess
import sys

import nbformat
import pytest
from conftest import ON_TENSORFLOW, ROOT

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
    """The figures' names: the chapter's by their numbers, the others' as the cells save them."""
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


@pytest.mark.parametrize("name", ALL)
def test_a_notebook_runs_alone_in_a_fresh_kernel_and_draws_its_figures(name, trained, tmp_path):
    if name == "04_training" and not ON_TENSORFLOW:
        pytest.skip("it derives the training step by TensorFlow's gradient tape")
    figures = tmp_path / "figures"
    finished = subprocess.run(
        [
            *(sys.executable, ROOT / "scripts" / "run_notebooks.py", "--preset", "tiny"),
            *(
                "--model",
                trained.folder,
                "--data-dir",
                "painted",
                "--output",
                tmp_path / "notebooks",
                "--figures",
                figures,
            ),
            path_of(name),
        ],
        capture_output=True,
        text=True,
        env={**os.environ, "MODELS_DIR": str(tmp_path / "models")},
    )
    assert finished.returncode == 0, finished.stderr
    drawn = sorted(path.name for path in figures.glob("*.png"))
    assert drawn == [f"{figure}.png" for figure in figures_of(name)]
    for number in FIGURES.get(name, []):
        assert f"8-{number} " in finished.stdout
    executed = nbformat.read(tmp_path / "notebooks" / f"{name}.ipynb", as_version=4)
    assert all(cell.execution_count for cell in executed.cells if is_code(cell))


@pytest.mark.parametrize("name", ALL)
def test_a_notebook_is_committed_executed_small_and_without_errors_or_private_paths(name):
    notebook = read(name)
    text = nbformat.writes(notebook)
    assert len(text) < 2_000_000
    assert str(ROOT) not in text
    for cell in filter(is_code, notebook.cells):
        assert cell.execution_count, f"never run: {cell.source}"
        assert not [o for o in cell.outputs if o.output_type == "error"]
    outputs = nbformat.writes(notebook)
    for figure in figures_of(name):
        assert figure in outputs


@pytest.mark.parametrize("name", ALL)
def test_what_a_committed_notebook_reveals_is_what_the_library_holds_today(name):
    """`utils.show_source` puts a file's name and a piece of it into the output."""
    shown = [
        output.data["text/markdown"]
        for cell in filter(is_code, read(name).cells)
        for output in cell.outputs
        if "```python" in output.get("data", {}).get("text/markdown", "")
    ]
    assert shown
    for text in shown:
        file, source = re.fullmatch(r"`(.+)`\n```python\n(.*)\n```", text, re.DOTALL).groups()
        lines = [line.strip() for line in (ROOT / file).read_text().splitlines()]
        piece = "\n".join(line.strip() for line in source.splitlines())
        assert f"\n{piece}\n" in "\n".join(["", *lines, ""]), f"execute {name} anew: {file}"


@pytest.mark.parametrize("name", ALL)
def test_a_notebook_keeps_to_the_house_style(name):
    notebook = read(name)
    assert len(notebook.cells) <= 50
    for cell in filter(is_code, notebook.cells):
        assert len(cell.source.splitlines()) <= 25, cell.source


def is_code(cell):
    return cell.cell_type == "code" and cell.source.strip()


def run(*arguments):
    return subprocess.run(
        [sys.executable, ROOT / "scripts" / "run_notebooks.py", *map(str, arguments)],
        capture_output=True,
        text=True,
    )


def test_a_failing_notebook_ends_in_one_line_and_is_left_as_it_was(tmp_path):
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("1 / 0")])
    path = tmp_path / "broken.ipynb"
    nbformat.write(notebook, path)
    before = path.read_bytes()
    finished = run("--in-place", "--figures", tmp_path / "figures", path)
    assert finished.returncode == 2 and path.read_bytes() == before
    assert finished.stderr.startswith("error: broken.ipynb") and "ZeroDivision" in finished.stderr
    assert finished.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (["--preset", "huge"], "huge"),
        (["--data-dir", "nowhere"], "nowhere"),
        (["no.ipynb"], "no.ipynb"),
    ],
)
def test_bad_arguments_are_named_in_one_line(arguments, word):
    finished = run(*arguments)
    assert finished.returncode == 2
    assert finished.stderr.startswith("error: ") and word in finished.stderr
    assert finished.stderr.count("\n") == 1
