"""Execute the course's notebooks in fresh kernels and list the figures that they draw."""

import asyncio
import base64
import io
import os
import re
import signal
import sys
import time
from pathlib import Path

import command

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))  # so that it runs where the project is not installed, too

from diffusion.support.tables import lay_out  # noqa: E402
from diffusion.training.config import PRESETS, get_preset  # noqa: E402

CHAPTER = sorted((ROOT / "notebooks").glob("*.ipynb"))


def parse_arguments():
    parser = command.Parser(
        description="Execute notebooks, each in a fresh kernel, and list the figures they draw."
    )
    add = parser.add_argument
    add(
        "notebooks",
        nargs="*",
        type=Path,
        default=CHAPTER,
        help="notebooks to execute (default: the chapter's, 01 to 06; notebooks/beyond has more)",
    )
    add(
        "--preset",
        type=command.one_of(tuple(PRESETS)),
        help=f"{', '.join(PRESETS)} (default: the environment's PRESET, or quick)",
    )
    words = "folder of flowers, or 'painted' (default: the environment's DATA_DIR, or data/)"
    add("--data-dir", type=command.data_folder, help=words)
    add(
        "--model",
        type=command.model,
        help="run's folder or .keras file that notebooks 05 to 14 load; where it knows no names, "
        "11 and 14 take the one that ships (default: the environment's MODEL, or those that ship)",
    )
    for option, name in (("--output", "notebooks"), ("--figures", "figures")):
        words = f"folder for the {name} (default: build/{name})"
        add(option, type=Path, default=ROOT / "build" / name, help=words)
    add("--in-place", action="store_true", help="keep the results in the notebooks themselves")
    return parser.parse_args()


def main():
    arguments = parse_arguments()
    for path in arguments.notebooks:
        if not path.is_file():
            command.fail(f"no notebook {path}")
        if not arguments.in_place:
            command.check_not_source(arguments.output / path.name, path)
    prepare(arguments)
    from tqdm import tqdm

    figures, notebooks = [], [(path, read(path)) for path in arguments.notebooks]
    cells = sum(len(notebook.cells) for _, notebook in notebooks)
    with tqdm(total=cells, unit="cell", disable=None) as bar:
        for path, notebook in notebooks:
            bar.set_description(path.stem)
            target = path if arguments.in_place else arguments.output / path.name
            if bar.disable:
                print(f"{path.stem} ...", flush=True)
            started = time.time()
            execute(notebook, path, target, bar)
            figures += new_figures(arguments.figures, path.stem, started)
    print_table(figures)
    return 0


def prepare(arguments):
    """Pass preset, data, model and figures folder to the kernels; refuse what does not exist."""
    if arguments.preset:
        os.environ["PRESET"] = arguments.preset
    get_preset(os.environ.get("PRESET") or "quick")
    if arguments.data_dir:
        os.environ["DATA_DIR"] = arguments.data_dir
        if arguments.data_dir != "painted":
            os.environ["DATA_DIR"] = os.path.relpath(Path(arguments.data_dir).resolve(), ROOT)
    if arguments.model:
        os.environ["MODEL"] = os.path.relpath(arguments.model.resolve(), ROOT)
    arguments.output.mkdir(parents=True, exist_ok=True)
    arguments.figures.mkdir(parents=True, exist_ok=True)
    os.environ["FIGURES_DIR"] = str(arguments.figures.resolve())
    search = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    os.environ["PYTHONPATH"] = os.pathsep.join(search)  # the notebooks import `utils`


def read(path):
    """Read a notebook; raise ValueError if it is not one."""
    import nbformat

    try:
        notebook = nbformat.read(path, as_version=4)
        nbformat.validate(notebook)
    except Exception as error:  # nbformat raises whatever a damaged file leads to
        raise ValueError(f"{path} is not a notebook ({error})") from error
    return notebook


def execute(notebook, path, target, bar):
    """Run all cells in a fresh kernel, in the notebook's own folder; write the result.

    A cell that fails ends it: the notebook is written as far as it came.
    """
    import nbformat
    from nbclient import NotebookClient
    from nbclient.exceptions import CellExecutionError

    client = NotebookClient(
        notebook,
        timeout=None,
        kernel_name="python3",
        resources={"metadata": {"path": str(path.resolve().parent)}},
        on_cell_complete=lambda **_: bar.update(),
        extra_arguments=["--IPKernelApp.log_level=40"],
        store_widget_state=False,
        record_timing=False,
    )
    try:
        asyncio.run(run_all_cells(client))
    except CellExecutionError as error:
        if target == path:  # the reader's own notebook stays as it was
            target = path.with_suffix(".failed.ipynb")
        nbformat.write(notebook, target)
        what = f"{error.ename}: {error.evalue}"[:300]
        raise RuntimeError(f"{path.name}: see {os.path.relpath(target)}: {what}") from error
    if target == path:
        shrink(notebook)
    temporary = target.with_name(f".{target.stem}.partial.ipynb")
    nbformat.write(notebook, temporary)
    os.replace(temporary, target)


async def run_all_cells(client, patience=5):
    """Run the notebook; on Ctrl-C or SIGTERM end its kernel and raise KeyboardInterrupt.

    patience: seconds that an interrupted cell has to save its work; a second signal ends it at
    once. nbclient's own handlers, which end in a trace-back, are left out: it does without where
    the event loop raises RuntimeError, as it does outside of the main thread.
    """
    loop, interrupts = asyncio.get_running_loop(), []
    execution = asyncio.ensure_future(client.async_execute())

    async def end():
        if client.km is not None and client.km.has_kernel:
            await client.km.interrupt_kernel()
            await asyncio.wait([execution], timeout=patience)
        cancel()

    def cancel():
        client.shutdown_kernel = "immediate"  # a graceful end of a busy kernel is a trace-back
        execution.cancel()

    def interrupt():
        interrupts.append(cancel() if interrupts else asyncio.ensure_future(end()))

    def refuse(*_):
        raise RuntimeError("the signals are handled already")

    if os.name != "nt":
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, interrupt)
    loop.add_signal_handler, loop.remove_signal_handler = refuse, lambda _: False
    try:
        await execution
    except BaseException:
        if not interrupts:
            raise
    if interrupts:
        raise KeyboardInterrupt


def shrink(notebook, limit=100_000):
    """Convert PNG pictures of more than `limit` bytes in the outputs to JPEG.

    Noise does not compress without loss, and a notebook in git should stay under 1.5 MB. Figures
    saved as files are left alone.
    """
    from PIL import Image

    for cell in notebook.cells:
        for output in cell.get("outputs", []):
            png = output.get("data", {}).get("image/png")
            if png and len(png) > limit:
                picture = Image.open(io.BytesIO(base64.b64decode(png))).convert("RGB")
                buffer = io.BytesIO()
                picture.save(buffer, "JPEG", quality=75, optimize=True)
                jpeg = base64.b64encode(buffer.getvalue()).decode()
                if len(jpeg) < len(png):  # a drawing of few colours is smaller as PNG
                    del output["data"]["image/png"]
                    output["data"]["image/jpeg"] = jpeg


def new_figures(folder, notebook, started):
    """List (figure, notebook, file, seconds since the one before) of what was drawn since then."""
    drawn = sorted((path.stat().st_mtime, path) for path in folder.glob("*.png"))
    figures, before = [], started
    for moment, path in drawn:
        if moment >= started:
            figures.append((path.stem, notebook, path, moment - before))
            before = moment
    return figures


def print_table(figures):
    """Print the figures in the order of their numbers."""
    rows = [("figure", "notebook", "seconds", "file")]
    for name, notebook, path, seconds in sorted(figures, key=_by_number):
        title = name.replace("fig_8_0", "8-").replace("fig_8_", "8-")
        rows.append((title, notebook, f"{seconds:.1f}", os.path.relpath(path)))
    print("\n".join(lay_out(rows, right=(2,))))
    print(f"{len(figures)} figures", file=sys.stdout if figures else sys.stderr)


def _by_number(figure):
    """Sort 8-2 before 8-10."""
    return [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", figure[0])]


if __name__ == "__main__":
    command.run(main)
