"""A person's own pictures: the square that is taken, masks, and files that are none."""

import numpy as np
import pytest
from flower_files import BLUE, GREEN, RED, paint
from PIL import Image

from diffusion.data.photographs import read_image, read_mask, read_photograph

TURNED = 6  # EXIF: the camera was held on its side


def stripes(width=400, height=200):
    """Red, green, blue and black fourths, side by side."""
    picture = np.zeros((height, width, 3), "uint8")
    for index, colour in enumerate((RED, GREEN, BLUE)):
        picture[:, width * index // 4 : width * (index + 1) // 4] = colour
    return Image.fromarray(picture)


@pytest.fixture
def photograph(tmp_path):
    path = tmp_path / "stripes.png"
    stripes().save(path)
    return path


def turned(path, picture, quality=95):
    """Save a JPEG as a camera on its side does: turned, with an EXIF note that says so."""
    exif = Image.Exif()
    exif[0x0112] = TURNED
    picture.transpose(Image.Transpose.ROTATE_90).save(path, exif=exif, quality=quality)
    return path


def test_without_a_crop_the_middle_is_read_as_the_loader_reads_it(photograph):
    np.testing.assert_array_equal(read_photograph(photograph, 32), read_image(photograph, 32))


@pytest.mark.parametrize(("left", "colour"), [(0, RED), (100, GREEN), (200, BLUE)])
def test_a_crop_takes_the_square_that_is_named(photograph, left, colour):
    crop = read_photograph(photograph, 16, (left, 40, 100))
    assert crop.shape == (16, 16, 3) and crop.dtype == np.uint8
    np.testing.assert_array_equal(crop, np.broadcast_to(colour, crop.shape))


def test_a_crop_is_counted_in_pixels_of_the_upright_photograph(tmp_path):
    path = turned(tmp_path / "turned.jpg", stripes())
    assert Image.open(path).size == (200, 400)
    crop = read_photograph(path, 8, (210, 50, 80)).astype(int)
    assert np.abs(crop - BLUE).max() < 10
    middle = read_photograph(path, 40).astype(int)
    assert [middle[20, column].argmax() for column in (5, 30)] == [1, 2]


@pytest.mark.parametrize(
    "crop", [(301, 0, 100), (0, 101, 100), (0, 0, 201), (-1, 0, 10), (0, 0, 0), (0, 0)]
)
def test_a_crop_outside_the_photograph_is_refused(photograph, crop):
    with pytest.raises(ValueError, match="crop"):
        read_photograph(photograph, 16, crop)


# --- masks ---


def half_white(path, size):
    """White on the left half, black on the right."""
    mask = np.zeros(size[::-1], "uint8")
    mask[:, : size[0] // 2] = 255
    Image.fromarray(mask).save(path)
    return path


def test_a_mask_as_large_as_the_photograph_is_cropped_with_it(photograph, tmp_path):
    mask = half_white(tmp_path / "mask.png", (400, 200))
    middle = read_mask(mask, 16, photograph)
    assert middle.dtype == bool and middle[:, :8].all() and not middle[:, 8:].any()
    assert read_mask(mask, 16, photograph, (0, 0, 100)).all()
    assert not read_mask(mask, 16, photograph, (200, 0, 100)).any()


@pytest.mark.parametrize("crop", [None, (0, 0, 50)])
def test_a_square_mask_covers_what_is_cropped(photograph, tmp_path, crop):
    found = read_mask(half_white(tmp_path / "mask.png", (64, 64)), 16, photograph, crop)
    assert found[:, :8].all() and not found[:, 8:].any()


def test_a_mask_is_turned_upright_as_the_photograph_is(tmp_path):
    path = turned(tmp_path / "turned.jpg", stripes())
    mask = turned(tmp_path / "mask.jpg", Image.open(half_white(tmp_path / "m.png", (400, 200))))
    found = read_mask(mask, 16, path)
    assert found[:, :8].all() and not found[:, 8:].any()


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "RGBA"])
def test_a_mask_may_have_any_mode_and_one_pixel(photograph, tmp_path, mode):
    mask = Image.new("L", (16, 16), 0)
    mask.putpixel((3, 12), 255)
    mask.convert(mode).save(tmp_path / "mask.png")
    np.testing.assert_array_equal(
        np.argwhere(read_mask(tmp_path / "mask.png", 16, photograph)), [(12, 3)]
    )


def test_transparent_parts_of_a_mask_are_white(photograph, tmp_path):
    mask = np.zeros((32, 32, 4), "uint8")
    mask[:16, :, 3] = 255  # opaque and black above
    Image.fromarray(mask).save(tmp_path / "mask.png")
    found = read_mask(tmp_path / "mask.png", 16, photograph)
    assert not found[:8].any() and found[8:].all()


def test_a_mask_of_another_shape_is_refused_with_both_shapes(photograph, tmp_path):
    mask = half_white(tmp_path / "mask.png", (300, 200))
    with pytest.raises(ValueError, match="300x200 pixels, the photograph 400x200: make the mask"):
        read_mask(mask, 16, photograph)


# --- files that are no pictures ---


def spoil(path, photograph, kind):
    """Write a file that cannot be read as a picture."""
    content = photograph.read_bytes()
    if kind == "folder":
        path.mkdir()
    elif kind != "missing":
        path.write_bytes(
            {"text": b"a rose", "empty": b"", "half": content[: len(content) // 2]}[kind]
        )
    return path


@pytest.mark.parametrize("crop", [None, (0, 0, 10)])
@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("missing", "no picture at"),
        ("folder", "is a folder"),
        ("text", "not a picture of a known format .*JPEG"),
        ("empty", "not a picture of a known format"),
        ("half", "is damaged or incomplete"),
    ],
)
def test_what_is_not_a_whole_picture_is_named(photograph, tmp_path, kind, words, crop):
    path = spoil(tmp_path / "rose.jpg", photograph, kind)
    for read in (
        lambda: read_photograph(path, 16, crop),
        lambda: read_mask(path, 16, photograph, crop),
        lambda: read_mask(photograph, 16, path, crop),
    ):
        with pytest.raises((ValueError, FileNotFoundError), match=f"rose.jpg.*{words}|{words}"):
            read()


@pytest.mark.parametrize("most", [100, 50_000])  # Pillow refuses twice as many, warns of the rest
def test_a_picture_too_large_to_decode_is_refused(photograph, monkeypatch, most):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", most)
    with pytest.raises(ValueError, match=r"is too large: more than .* save a smaller copy"):
        read_photograph(photograph, 16)


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "BMP", "GIF", "TIFF", "JPEG"])
def test_every_known_format_is_read(tmp_path, kind):
    path = paint(tmp_path / "picture", RED, format=kind)
    assert read_photograph(path, 8, (2, 2, 20))[..., 0].min() > 250
