"""What every notebook shares and no model needs: showing, saving, sliding, looking inside."""

import inspect
import io
import os
import platform
import tempfile
import textwrap
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

ROOT = Path(__file__).resolve().parent
# Okabe and Ito's palette, made for all kinds of colour vision.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")


def import_keras_quietly():
    """Import Keras without TensorFlow's start-up lines, which no setting silences.

    They go to the process's standard error from C++, before TensorFlow reads its settings. What
    matters in them, whether a GPU was found, `scripts/check_environment.py` reports. If the import
    fails, everything is shown. Called when this module is imported.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    kept_stderr = os.dup(2)
    with tempfile.TemporaryFile() as said:
        os.dup2(said.fileno(), 2)
        try:
            import keras  # noqa: F401
        except Exception:  # Ctrl-C shows nothing
            said.seek(0)
            os.write(kept_stderr, said.read())
            raise
        finally:
            os.dup2(kept_stderr, 2)
            os.close(kept_stderr)


def set_style():
    """Give all figures one look. Called when this module is imported."""
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


def preset_name():
    """The preset the notebooks use: the environment's PRESET, else "quick"."""
    return os.environ.get("PRESET") or "quick"


def data_dir():
    """Where the flowers are: the environment's DATA_DIR, else None (look under `data/`).

    A relative path counts from the project's folder, not from the notebook's.
    """
    folder = os.environ.get("DATA_DIR")
    return (ROOT / folder if folder != "painted" else folder) if folder else None


def model_path():
    """Which trained model to draw with: the environment's MODEL, else None (the one that ships).

    A relative path counts from the project's folder, not from the notebook's.
    """
    path = os.environ.get("MODEL")
    return ROOT / path if path else None


def set_seed(seed=0):
    """Seed Python, NumPy and Keras, so that a notebook shows the same thing twice."""
    import keras

    keras.utils.set_random_seed(seed)


def device_report():
    """Print what this runs on: Python, Keras and its backend, and the devices that they see."""
    import keras

    devices = ", ".join(keras.distribution.list_devices())
    print(
        f"Python {platform.python_version()}, Keras {keras.__version__} "
        f"on {keras.backend.backend()}, {os.cpu_count()} CPU cores; devices: {devices}"
    )


def sample_batch(dataset):
    """Return the first batch of a data set as a NumPy array (B, S, S, 3)."""
    return np.asarray(next(iter(dataset)))


def display(images, n=10, titles=None, rows=1, size=1.5, caption=None):
    """Show the first `n` of `images` (N, S, S, 3) in `rows` rows; return the figure.

    images: uint8, or float in [0, 1]; what lies outside is clipped. titles: one for each picture.
    size: of a picture, in inches. caption: a line under all of them.
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


def add_caption(figure, caption):
    """Write a line under a figure: what it was made from."""
    figure.supxlabel(caption, fontsize=8, color="0.35")


def save_figure(figure, name, caption=None):
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


def show_source(thing):
    """Show the source of a function, class or method, highlighted: what is shown is what runs."""
    from IPython.display import Markdown
    from IPython.display import display as show

    source = textwrap.dedent(inspect.getsource(thing)).strip()
    where = Path(inspect.getsourcefile(thing)).resolve()
    where = where.relative_to(ROOT) if where.is_relative_to(ROOT) else where.name
    show(Markdown(f"`{where}`\n```python\n{source}\n```"))


def slider(pictures, labels, name="step", size=256):
    """Slide through pictures (N, S, S, 3): a static strip for everybody, a slider with a kernel.

    labels: what the slider says at each picture. name: what is slid. size: of the live picture,
    in pixels. On a web page, where no kernel runs, the strip of at most ten is all there is.
    """
    import ipywidgets
    from IPython.display import display as show

    labels = [str(label) for label in labels]
    chosen = np.unique(
        np.linspace(0, len(pictures) - 1, min(10, len(pictures))).round().astype(int)
    )
    strip = display(
        np.asarray(pictures)[chosen], titles=[f"{name} {labels[index]}" for index in chosen]
    )
    show(strip)
    plt.close(strip)
    frames = [_as_png(picture, size) for picture in pictures]
    picture = ipywidgets.Image(value=frames[0], width=size, height=size)
    handle = ipywidgets.SelectionSlider(
        options=[(label, index) for index, label in enumerate(labels)], description=name
    )
    handle.observe(lambda change: setattr(picture, "value", frames[change["new"]]), names="value")
    show(ipywidgets.VBox([handle, picture]))


def _as_png(picture, size):
    from PIL import Image

    if picture.dtype != np.uint8:
        picture = np.round(np.clip(picture, 0, 1) * 255).astype("uint8")
    buffer = io.BytesIO()
    Image.fromarray(picture).resize((size, size), Image.Resampling.NEAREST).save(buffer, "PNG")
    return buffer.getvalue()
