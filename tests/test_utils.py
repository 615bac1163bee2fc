"""The notebooks' helpers: figures on disk, sources, sliders, settings from the environment."""

import matplotlib
import numpy as np
import pytest

matplotlib.use("Agg")

import utils
import matplotlib.pyplot as plt
from PIL import Image

from diffusion import schedules
from diffusion.support.files import image_grid


@pytest.fixture(autouse=True)
def close_figures():
    yield
    plt.close("all")


@pytest.fixture
def shown(monkeypatch):
    """The objects handed to IPython for display."""
    things = []
    monkeypatch.setattr("IPython.display.display", things.append)
    return things


def images(count, size=8):
    return np.random.default_rng(0).uniform(-0.2, 1.2, (count, size, size, 3))


def test_a_figure_is_saved_where_the_environment_says(monkeypatch, tmp_path):
    monkeypatch.setenv("FIGURES_DIR", str(tmp_path / "new"))
    path = utils.save_figure(utils.display(images(3)), "fig_8_99", "three images")
    assert path == tmp_path / "new" / "fig_8_99.png"
    assert Image.open(path).width > 300
    assert [p.name for p in path.parent.iterdir()] == ["fig_8_99.png"]


def test_display_shows_at_most_n_in_rows_with_titles_and_caption():
    figure = utils.display(images(12), n=10, rows=2, titles=list("abcdefghij"), caption="x")
    assert len(figure.axes) == 10 and [a.get_title() for a in figure.axes] == list("abcdefghij")
    assert all(len(axis.images) == 1 for axis in figure.axes)
    assert figure.axes[0].images[0].get_array().max() <= 1


def test_the_source_shown_is_the_source_that_runs(shown):
    utils.show_source(schedules.CosineSchedule)
    assert "class CosineSchedule(Schedule):" in shown[0].data
    assert "`diffusion/schedules.py`" in shown[0].data and "```python" in shown[0].data
    utils.show_source(schedules.Schedule.get_config)
    assert "\ndef get_config(self)" in shown[1].data


def test_a_slider_has_a_static_strip_and_shows_the_chosen_image(shown):
    utils.slider(images(25), range(25), name="epoch")
    strip, box = shown
    assert len(strip.axes) == 10
    assert [strip.axes[0].get_title(), strip.axes[9].get_title()] == ["epoch 0", "epoch 24"]
    handle, picture = box.children
    first = picture.value
    handle.index = 7
    assert picture.value != first and picture.value[:4] == b"\x89PNG"


def test_preset_data_and_model_come_from_the_environment(monkeypatch):
    monkeypatch.delenv("PRESET", raising=False)
    monkeypatch.setenv("DATA_DIR", "")
    assert utils.preset_name() == "quick" and utils.data_dir() is None
    monkeypatch.setenv("PRESET", "book")
    monkeypatch.setenv("DATA_DIR", "some/flowers")
    assert utils.preset_name() == "book" and utils.data_dir() == utils.ROOT / "some" / "flowers"
    monkeypatch.setenv("DATA_DIR", "painted")
    assert utils.data_dir() == "painted"
    monkeypatch.setenv("MODEL", "models/mine")
    assert utils.model_path() == utils.ROOT / "models" / "mine"


def test_sample_batch_is_the_first_batch(painted):
    from diffusion.data.batches import Batches

    batches = Batches(painted.images, 8)
    np.testing.assert_array_equal(utils.sample_batch(batches), batches[0])


def test_a_grid_has_each_image_in_its_place_and_is_white_elsewhere():
    cells = np.linspace(0, 0.9, 7)[:, None, None, None] * np.ones((7, 2, 3, 3))
    laid = image_grid(cells, columns=4)
    assert laid.shape == (4, 12, 3) and laid.dtype == np.uint8
    for index in range(7):
        row, column = divmod(index, 4)
        cell = laid[2 * row : 2 * row + 2, 3 * column : 3 * column + 3]
        assert (cell == np.round(cells[index] * 255)).all()
    assert (laid[2:, 9:] == 255).all()
