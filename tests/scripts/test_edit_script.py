"""The command line for photographs: what it writes, and what it refuses in one line."""

import numpy as np
import pytest
from PIL import Image
from processes import assert_one_line, run_script

from diffusion.data.photographs import read_mask, read_photograph
from diffusion.editing import redraw, rename, walk
from diffusion.inpainting import inpaint
from diffusion.inversion import find_noise
from diffusion.latents import initial_noise
from diffusion.support.files import captions
from diffusion.training.building import load_model

CELL = 128  # the side of an image in a picture: each pixel of 16x16 is 8 wide


@pytest.fixture(scope="module")
def model(by_name):
    return load_model(by_name)


@pytest.fixture(scope="module")
def photographs(painted, tmp_path_factory):
    """Two photographs: one held on its side, as its EXIF data says, and one wide."""
    folder = tmp_path_factory.mktemp("photographs")
    exif = Image.Exif()
    exif[0x0112] = 6
    large = [Image.fromarray(image).resize((120, 120)) for image in painted.images[:2]]
    large[0].transpose(Image.Transpose.ROTATE_90).save(folder / "turned.jpg", exif=exif, quality=95)
    wide = Image.new("RGB", (200, 120))
    wide.paste(large[1], (30, 0))
    wide.save(folder / "wide.png")
    return [folder / "turned.jpg", folder / "wide.png"]


@pytest.fixture
def edit(call, by_name, tmp_path):
    """A function: call edit.py with an action and options, return the images of its picture."""

    def images(action, *options):
        output = tmp_path / "edited.png"
        arguments = action, *options, "--model", by_name, "--steps", 3, "--output", output
        status, printed, errors = call("edit.py", *arguments)
        assert status == 0, errors
        assert str(output) in printed
        return cells(np.asarray(Image.open(output)))

    return images


def cells(picture):
    """The images of a picture, rows x columns, without their names, as float in [0, 1]."""
    bands = (
        captions([name], CELL).shape[1] for name in ("one line", "a name that needs two lines")
    )
    height = next(CELL + band for band in bands if len(picture) % (CELL + band) == 0)
    rows = picture.reshape(len(picture) // height, height, -1, CELL, 3).swapaxes(1, 2)
    return rows[:, :, 4:CELL:8, 4::8] / 255


def read(paths, crop=None):
    return np.stack([read_photograph(path, 16, crop) for path in paths])


def assert_alike(images, others):
    """Assert that images agree but for rounding, which differs with the place in a batch."""
    assert np.abs(images - others).mean() < 0.01


def test_invert_shows_each_photograph_its_noise_and_what_is_drawn_from_it(
    edit, model, photographs, capsys
):
    images = edit("invert", *photographs, "--from", "Rose")
    assert images.shape[:2] == (2, 3)
    np.testing.assert_allclose(images[:, 0], read(photographs) / 255, atol=1e-6)
    noise = find_noise(model, read(photographs), 3, labels="rose")
    assert_alike(images[:, 1], np.clip(0.5 + np.asarray(noise) / 6, 0, 1))
    expected = model.generate(initial_noise=noise, steps=3, labels="rose")
    assert_alike(images[:, 2], expected)


def test_walk_goes_from_each_photograph_to_the_next(edit, model, photographs):
    images = edit("walk", *photographs, photographs[0], "--images", 4)
    assert images.shape[:2] == (2, 6)
    photos = read(photographs) / 255
    np.testing.assert_allclose(images[0, [0, -1]], photos, atol=1e-6)
    np.testing.assert_allclose(images[1, [0, -1]], photos[::-1], atol=1e-6)
    noise = np.asarray(find_noise(model, read(photographs), 3))
    assert_alike(images[0, 1:-1], walk(model, noise[0], noise[1], 4, 3))


def test_walk_goes_from_a_single_photograph_to_a_drawn_flower(edit, model, photographs):
    images = edit("walk", photographs[0], "--images", 3, "--seed", 5, "--from", "iris")
    assert images.shape[:2] == (1, 5)
    drawn = model.generate(initial_noise=initial_noise(1, 16, 5), steps=3, labels="iris")
    assert_alike(images[0, -1], drawn[0])
    np.testing.assert_array_equal(images[0, -1], images[0, -2])


def test_inpaint_keeps_the_black_part_of_the_mask(edit, model, photographs, tmp_path):
    mask = np.zeros((120, 200), "uint8")
    mask[60:] = 255
    Image.fromarray(mask).save(tmp_path / "mask.png")
    options = "--mask", tmp_path / "mask.png", "--to", "iris", "--resamplings", 2, "--seed", 3
    images = edit("inpaint", photographs[1], *options)
    photo = read(photographs[1:])
    assert images.shape[:2] == (1, 3)
    np.testing.assert_allclose(images[0, 2, :8], photo[0, :8] / 255, atol=1e-6)
    assert (images[0, 1, 8:] == 128 / 255).all()
    area = read_mask(tmp_path / "mask.png", 16, photographs[1])
    expected = inpaint(model, photo, area, 3, 3, 2, labels="iris", guidance=2.0)
    assert_alike(images[0, 2], expected[0])


def test_redraw_by_strength_under_a_name_and_crop(edit, model, photographs):
    options = "--strength", 0.4, "--to", "iris", "--guidance", 3, "--crop", 10, 20, 80, "--seed", 1
    images = edit("redraw", *photographs, *options)
    photos = read(photographs, (10, 20, 80))
    np.testing.assert_allclose(images[:, 0], photos / 255, atol=1e-6)
    assert_alike(images[:, 1], redraw(model, photos, 0.4, 3, 1, labels="iris", guidance=3.0))


def test_redraw_at_strength_0_returns_the_photographs(edit, photographs):
    images = edit("redraw", *photographs, "--strength", 0)
    np.testing.assert_array_equal(images[:, 0], images[:, 1])


def test_redraw_from_one_name_to_another(edit, model, photographs):
    images = edit("redraw", *photographs, "--from", "rose", "--to", "iris")
    assert_alike(images[:, 1], rename(model, read(photographs), "rose", "iris", 3, guidance=2.0))


# --- mistakes, before Keras is imported ---


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["invert", "PHOTO", "nowhere.jpg"], "no picture at nowhere.jpg"),
        (["redraw", "text.jpg"], "text.jpg is not a picture of a known format"),
        (["redraw", "half.jpg"], "half.jpg is damaged or incomplete"),
        (["walk", "PHOTO", "."], ". is a folder"),
        (["invert", "PHOTO", "--crop", "10", "10", "500"], "the crop 10 10 500"),
        (["invert", "PHOTO", "--crop", "10", "-1", "5"], "must be a whole number at least 0"),
        (["invert", "PHOTO", "--output", "text.txt"], "text.txt: name a picture file"),
        (["invert", "PHOTO", "--output", "PHOTO"], "what is read"),
        (["inpaint", "PHOTO"], "--mask"),
        (["inpaint", "PHOTO", "--mask", "wide.png"], "make the mask the same size"),
        (["inpaint", "PHOTO", "--mask", "black.png"], "nothing to draw: black.png has no white"),
        (["redraw", "PHOTO", "--strength", "2"], "at most 1, got '2'"),
        (["redraw", "PHOTO", "--from", "rose"], "--from needs --to"),
        (["redraw", "PHOTO", "--from", "rose", "--to", "iris", "--strength", "0"], "leave one out"),
        (["redraw", "PHOTO", "--guidance", "2"], "--guidance needs --to"),
        (["redraw", "PHOTO", "--to", "rosee"], "no flower named 'rosee': did you mean rose"),
        (["walk", "PHOTO", "--images", "1"], "at least 2"),
        (["walk", "PHOTO", "--seed", "-1"], "at least 0"),
        (["invert", "PHOTO", "--model", "nowhere.keras"], "no model at nowhere.keras"),
        (["dissolve", "PHOTO"], "dissolve"),
        ([], "ACTION"),
    ],
)
def test_a_mistake_is_one_line_and_nothing_is_written(
    options, words, call, by_name, photographs, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "text.jpg").write_text("a rose")
    (tmp_path / "half.jpg").write_bytes(photographs[0].read_bytes()[:900])
    Image.new("L", (33, 22), 255).save(tmp_path / "wide.png")
    Image.new("L", (16, 16), 0).save(tmp_path / "black.png")
    options = [photographs[0] if word == "PHOTO" else word for word in options]
    if "--output" not in options and options:
        options += ["--output", "a.png"]
    if "--model" not in options and options:
        options += ["--model", by_name]
    before = sorted(tmp_path.iterdir()), photographs[0].read_bytes()
    status, _, errors = call("edit.py", *options)
    assert status == 2
    assert_one_line(errors, words)
    assert before == (sorted(tmp_path.iterdir()), photographs[0].read_bytes())


def test_a_model_without_names_is_named_where_a_name_is_asked_for(call, trained, photographs):
    arguments = "redraw", photographs[0], "--to", "rose", "--model", trained.folder
    status, _, errors = call("edit.py", *arguments)
    assert status == 2
    assert_one_line(errors, "this model has no names")


# --- in a process of its own ---


@pytest.mark.slow
def test_a_photograph_held_on_its_side_is_drawn_upright_by_the_model_that_ships(
    real_flowers_dir, tmp_path
):
    source = sorted((real_flowers_dir / "dataset/valid").rglob("*.jpg"))[0]
    exif = Image.Exif()
    exif[0x0112] = 6
    with Image.open(source) as upright:
        side = upright.convert("RGB").transpose(Image.Transpose.ROTATE_90)
    side.save(tmp_path / "side.jpg", exif=exif, quality=95)
    output = tmp_path / "out" / "redrawn.png"
    options = ["redraw", tmp_path / "side.jpg", "--strength", 0.3, "--steps", 10]
    options += ["--to", "rose", "--output", output]
    status, said = run_script("edit.py", [str(option) for option in options], tmp_path)
    assert status == 0, said
    photograph, redrawn = (
        np.asarray(Image.open(output))[1:128:2, left + 1 : left + 128 : 2] / 255.0
        for left in (0, 128)
    )
    assert np.abs(photograph - read_photograph(source, 64) / 255).mean() < 0.02
    assert 0.005 < np.abs(photograph - redrawn).mean() < 0.15
    assert sorted(path.name for path in output.parent.iterdir()) == ["redrawn.png"]
