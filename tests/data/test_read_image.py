"""Reading one picture: upright, RGB, its middle or all of it, and only in the listed formats."""

import numpy as np
import pytest
from conftest import SHARED
from flower_files import BLUE, GREEN, RED, paint
from PIL import Image

from diffusion.data.flowers import read_image


def stripes(width=400, height=200):
    """Red, green and blue thirds, side by side."""
    picture = np.zeros((height, width, 3), dtype=np.uint8)
    for i in range(3):
        picture[:, width * i // 3 : width * (i + 1) // 3, i] = 255
    return Image.fromarray(picture)


def test_crop_keeps_the_middle_in_its_proportions_and_stretch_keeps_all(tmp_path):
    stripes().save(tmp_path / "wide.png")
    crop = read_image(tmp_path / "wide.png", 60, "crop")
    middle = np.asarray(stripes())[:, 100:300].reshape(200, 200, 3)
    assert crop.dtype == np.uint8 and crop.shape == (60, 60, 3)
    for column in (3, 15, 30, 45, 57):  # stretched, the fourths would be red and blue
        np.testing.assert_array_equal(crop[30, column], middle[100, int((column + 0.5) / 0.3)])
    stretched = read_image(tmp_path / "wide.png", 60, "stretch")
    for column, colour in ((5, RED), (30, GREEN), (55, BLUE)):
        np.testing.assert_array_equal(stretched[30, column], colour)


@pytest.mark.parametrize("fit", ["crop", "stretch"])
def test_shrinking_averages_fine_detail_instead_of_picking_from_it(tmp_path, fit):
    checks = np.indices((256, 256)).sum(axis=0) % 2 * 255
    Image.fromarray(checks.astype(np.uint8)).save(tmp_path / "checks.png")
    assert np.abs(read_image(tmp_path / "checks.png", 20, fit).astype(int) - 127).max() < 12


def test_a_picture_is_turned_upright(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was held on its side
    stripes(300, 300).save(tmp_path / "turned.jpg", exif=exif, quality=95)
    upright = read_image(tmp_path / "turned.jpg", 30).astype(int)
    assert [upright[row, 15].argmax() for row in (4, 15, 25)] == [0, 1, 2]


@pytest.mark.parametrize(
    ("mode", "name"),
    [("L", "a.jpg"), ("L", "a.png"), ("P", "a.gif"), ("CMYK", "a.jpg"), ("1", "a.png")],
)
def test_every_mode_becomes_rgb(tmp_path, mode, name):
    white = read_image(paint(tmp_path / name, (255, 255, 255), mode=mode), 8)
    black = read_image(paint(tmp_path / name, (0, 0, 0), mode=mode), 8)
    assert white.shape == (8, 8, 3) and white.min() > 250 and black.max() < 5
    if mode not in ("L", "1"):
        red = read_image(paint(tmp_path / name, RED, mode=mode, quality=95), 8)
        assert red[..., 0].min() > 240 and red[..., 1:].max() < 15


def test_sixteen_bits_are_scaled_to_eight_instead_of_cut_off(tmp_path):
    levels = np.full((16, 16), 32768, dtype=np.uint16)
    Image.fromarray(levels).save(tmp_path / "a.png")
    np.testing.assert_array_equal(read_image(tmp_path / "a.png", 8), 128)


@pytest.mark.parametrize(
    ("mode", "opacity", "level"),
    [("RGBA", 0, 255), ("LA", 0, 255), ("P", 0, 255), ("RGBA", 128, 127)],
)
def test_black_lets_white_through_as_far_as_it_is_transparent(tmp_path, mode, opacity, level):
    if mode == "P":
        picture = Image.new("P", (20, 20), 0)
        picture.putpalette([0, 0, 0] * 256)
        picture.save(tmp_path / "a.png", transparency=0)
    else:
        Image.new("RGBA", (20, 20), (0, 0, 0, opacity)).convert(mode).save(tmp_path / "a.png")
    np.testing.assert_array_equal(read_image(tmp_path / "a.png", 8), level)


@pytest.mark.parametrize("fit", ["crop", "stretch"])
def test_decoding_large_jpegs_at_a_fraction_loses_nothing_visible(monkeypatch, fit):
    folder = SHARED / "flowers102-originals"
    if not folder.is_dir():
        pytest.skip(f"the full-size flowers are not at {folder}")
    for path in sorted(folder.rglob("*.jpg"))[::9]:
        quick = read_image(path, 64, fit).astype(float)
        with monkeypatch.context() as patch:
            patch.setattr("PIL.JpegImagePlugin.JpegImageFile.draft", lambda *_: None)
            full = read_image(path, 64, fit).astype(float)
        assert np.abs(quick - full).mean() < 3, path


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF"])
def test_the_content_counts_not_the_suffix(tmp_path, kind):
    assert read_image(paint(tmp_path / "flower.jpg", format=kind), 8)[..., 0].min() > 250


def test_two_pictures_in_one_jpeg_as_phones_write_them_are_read_as_the_first(tmp_path):
    second = Image.new("RGB", (40, 30), BLUE)
    paint(tmp_path / "flower.jpg", format="MPO", save_all=True, append_images=[second])
    assert read_image(tmp_path / "flower.jpg", 8)[0, 0].argmax() == 0


def test_postscript_called_jpg_is_refused_without_starting_ghostscript(tmp_path, monkeypatch):
    started = []
    monkeypatch.setattr("PIL.EpsImagePlugin.Ghostscript", lambda *_, **__: started.append(True))
    path = paint(tmp_path / "flower.jpg", format="EPS")
    with pytest.raises(OSError, match="flower"):
        read_image(path, 8)
    assert not started
