"""Helpers for the notebooks: display images, save figures, show sources, seeds and sliders."""

import inspect
import io
import os
import platform
import tempfile
import textwrap
from collections.abc import Iterable, Sequence
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure

ROOT = Path(__file__).resolve().parent
# The palette of Okabe and Ito, for all kinds of colour vision.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")


def import_keras_quietly() -> None:
    """Import Keras without TensorFlow's start-up lines, which no setting silences.

    C++ code writes them to standard error before TensorFlow reads its settings.
    `scripts/check_environment.py` reports what matters in them, whether a GPU was found. If the
    import fails, everything is shown. Called when this module is imported.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    kept_stderr = os.dup(2)
    with tempfile.TemporaryFile() as captured:
        os.dup2(captured.fileno(), 2)
        try:
            import keras  # noqa: F401
        except Exception:  # Ctrl-C shows nothing
            captured.seek(0)
            os.write(kept_stderr, captured.read())
            raise
        finally:
            os.dup2(kept_stderr, 2)
            os.close(kept_stderr)


def set_style() -> None:
    """Set the style of all figures. Called when this module is imported."""
    plt.rcParams.update(
        {
            "axes.prop_cycle": plt.cycler(color=COLOURS),
            "axes.spines.top": False,
            "axes.spines.right": False,
            "axes.grid": True,
            "grid.alpha": 0.25,
            "figure.dpi": 100,
            "figure.figsize": (9, 4),
            "figure.constrained_layout.use": True,
            "font.size": 11,
            "image.interpolation": "nearest",
            "legend.frameon": False,
            "lines.linewidth": 2,
            "savefig.dpi": 150,
        }
    )


import_keras_quietly()
set_style()


def preset_name() -> str:
    """Return the notebooks' preset: the environment's PRESET, else "quick"."""
    return os.environ.get("PRESET") or "quick"


def data_dir() -> Path | str | None:
    """Return the flowers' folder: the environment's DATA_DIR, else None (look under `data/`).

    A relative path starts at the project's folder, not at the notebook's.
    """
    folder = os.environ.get("DATA_DIR")
    return (ROOT / folder if folder != "painted" else folder) if folder else None


def model_path() -> Path | None:
    """Return the trained model to load: the environment's MODEL, else None (the one that ships).

    A relative path starts at the project's folder, not at the notebook's.
    """
    path = os.environ.get("MODEL")
    return ROOT / path if path else None


def set_seed(seed: int = 0) -> None:
    """Seed Python, NumPy and Keras, so that a notebook gives the same results every time."""
    import keras

    keras.utils.set_random_seed(seed)


def device_report() -> None:
    """Print the versions of Python and Keras, the backend and the devices it finds."""
    import keras

    devices = ", ".join(keras.distribution.list_devices())
    print(
        f"Python {platform.python_version()}, Keras {keras.__version__} "
        f"on {keras.backend.backend()}, {os.cpu_count()} CPU cores; devices: {devices}"
    )


def sample_batch(dataset) -> np.ndarray:
    """Return the first batch of a data set as an array (B, S, S, 3)."""
    return np.asarray(next(iter(dataset)))


def display(
    images,
    n: int = 10,
    titles: Sequence[str] | None = None,
    rows: int = 1,
    size: float = 1.5,
    caption: str | None = None,
) -> Figure:
    """Show the first `n` of `images` (N, S, S, 3) in `rows` rows; return the figure.

    images: uint8, or float in [0, 1]; values outside are clipped. titles: one for each image.
    size: of each image, in inches. caption: a line below all of them.
    """
    images = np.asarray(images)[:n]
    if images.dtype != np.uint8:
        images = np.clip(images, 0, 1)
    columns = -(-len(images) // rows)
    height = size * rows * (1.18 if titles is not None else 1.0) + (0.25 if caption else 0)
    figure, axes = plt.subplots(rows, columns, figsize=(size * columns, height), squeeze=False)
    for index, axis in enumerate(axes.flat):
        axis.axis("off")
        if index < len(images):
            axis.imshow(images[index])
            if titles is not None:
                axis.set_title(titles[index], fontsize=9)
    if caption:
        add_caption(figure, caption)
    return figure


def add_caption(figure: Figure, caption: str) -> None:
    """Write a line under a figure that says how it was made."""
    figure.supxlabel(caption, fontsize=8, color="0.35")


def save_figure(figure: Figure, name: str, caption: str | None = None) -> Path:
    """Save a figure as `<figures folder>/<name>.png`, whole or not at all; return the path.

    The folder is the environment's FIGURES_DIR, else `build/figures`.
    """
    if caption:
        add_caption(figure, caption)
    folder = Path(os.environ.get("FIGURES_DIR") or ROOT / "build" / "figures")
    folder.mkdir(parents=True, exist_ok=True)
    path, temporary = folder / f"{name}.png", folder / f".{name}.partial.png"
    figure.savefig(temporary)
    os.replace(temporary, path)
    return path


def show_source(thing) -> None:
    """Show the source of a function, class or method, highlighted: the very code that runs."""
    from IPython.display import Markdown
    from IPython.display import display as show

    source = textwrap.dedent(inspect.getsource(thing)).strip()
    where = Path(inspect.getsourcefile(thing)).resolve()
    where = where.relative_to(ROOT) if where.is_relative_to(ROOT) else where.name
    show(Markdown(f"`{where}`\n```python\n{source}\n```"))


def slider(images, labels: Iterable, name: str = "step", size: int = 256) -> None:
    """Show a static strip of at most ten of `images` (N, S, S, 3), and a slider through all.

    labels: one for each image. name: what changes from image to image. size: of the slider's image,
    in pixels. The slider needs a running kernel; a web page shows only the strip.
    """
    import ipywidgets
    from IPython.display import display as show

    labels = [str(label) for label in labels]
    chosen = np.unique(np.linspace(0, len(images) - 1, min(10, len(images))).round().astype(int))
    strip = display(
        np.asarray(images)[chosen], titles=[f"{name} {labels[index]}" for index in chosen]
    )
    show(strip)
    plt.close(strip)
    frames = [_as_png(image, size) for image in images]
    picture = ipywidgets.Image(value=frames[0], width=size, height=size)
    handle = ipywidgets.SelectionSlider(
        options=[(label, index) for index, label in enumerate(labels)], description=name
    )
    handle.observe(lambda change: setattr(picture, "value", frames[change["new"]]), names="value")
    show(ipywidgets.VBox([handle, picture]))


def _as_png(image, size):
    from PIL import Image

    if image.dtype != np.uint8:
        image = np.round(np.clip(image, 0, 1) * 255).astype("uint8")
    buffer = io.BytesIO()
    Image.fromarray(image).resize((size, size), Image.Resampling.NEAREST).save(buffer, "PNG")
    return buffer.getvalue()
