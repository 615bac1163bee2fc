"""Read pictures one at a time: upright, in RGB, the middle square or another one.

`read_image` is what the loader of data sets calls on every file. `read_photograph` and `read_mask`
are for a person's own files, so their errors name the file and say what to do.
"""

import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeAlias

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from diffusion.data.folders import SUFFIXES
from diffusion.support.validation import whole_number

FORMATS = sorted(set(SUFFIXES.values()))  # Pillow knows more, and starts Ghostscript for one
Crop: TypeAlias = Sequence[int] | None  # left, top and side of a square, in pixels; None: middle


def read_image(path: Path | str, image_size: int, fit: str = "crop") -> np.ndarray:
    """Read one picture as uint8 (image_size, image_size, 3), upright.

    fit: "crop" takes the largest centred square, "stretch" the whole picture.
    Grey, palette, CMYK and 16-bit pictures become RGB; transparent pixels become white.
    """
    with Image.open(path, formats=FORMATS) as image:
        # A JPEG can be decoded at 1/2, 1/4 or 1/8: twice the target leaves the resize its work.
        image.draft("RGB", (2 * image_size, 2 * image_size))
        image = _to_rgb(ImageOps.exif_transpose(image))
    return _resized(image, image_size, _middle(*image.size) if fit == "crop" else None)


def read_photograph(path: Path | str, image_size: int, crop: Crop = None) -> np.ndarray:
    """Read any photograph as uint8 (image_size, image_size, 3), turned upright by its EXIF data.

    crop: left, top and side of the square to take, in pixels of the upright photograph; None takes
        the largest centred square, as `read_image` does.
    Raises FileNotFoundError where there is no such file, and ValueError for one that is not a
    picture, is damaged or too large to decode, and for a crop that does not lie within it.
    """
    if crop is None:
        return _decoded(path, lambda: read_image(path, image_size))
    image = _decoded(path, lambda: _upright(path))
    return _resized(image.crop(_square(path, image.size, crop)), image_size, None)


def read_mask(
    path: Path | str, image_size: int, photograph: Path | str, crop: Crop = None
) -> np.ndarray:
    """Read a mask for a photograph: bool (image_size, image_size), True where it is white.

    Light grey and transparent pixels count as white. A mask as large as the upright photograph is
    cropped as the photograph is; any other must be square, and covers the crop.
    Raises FileNotFoundError and ValueError as `read_photograph` does, and ValueError for a mask of
    another shape.
    """
    size = _decoded(photograph, lambda: _upright(photograph).size)
    mask = _decoded(path, lambda: _upright(path)).convert("L")
    if mask.size == size:
        box = _middle(*size) if crop is None else _square(photograph, size, crop)
        mask = mask.crop(tuple(round(edge) for edge in box))
    elif mask.width != mask.height:
        raise ValueError(
            f"the mask {path} has {mask.width}x{mask.height} pixels, the photograph {size[0]}x"
            f"{size[1]}: make the mask the same size, or a square that covers what is cropped"
        )
    return _resized(mask, image_size, None) >= 128


def _decoded(path, read: Callable):
    """Return `read()`; whatever a decoder raises becomes one line about the file."""
    if not Path(path).exists():
        raise FileNotFoundError(f"no picture at {path}")
    if Path(path).is_dir():
        raise ValueError(f"{path} is a folder: name a picture in it")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about odd metadata
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            return read()
    except UnidentifiedImageError as error:
        kinds = ", ".join(FORMATS)
        raise ValueError(f"{path} is not a picture of a known format ({kinds})") from error
    except (Image.DecompressionBombWarning, Image.DecompressionBombError) as error:
        most = f"{(Image.MAX_IMAGE_PIXELS or 0) / 1e6:.0f}"
        raise ValueError(
            f"{path} is too large: more than {most} million pixels; save a smaller copy of it"
        ) from error
    except PermissionError:
        raise
    except Exception as error:  # a damaged file makes a decoder raise anything
        raise ValueError(f"{path} is damaged or incomplete ({error}): save it again") from error


def _upright(path):
    with Image.open(path, formats=FORMATS) as image:
        return _to_rgb(ImageOps.exif_transpose(image))


def _to_rgb(image):
    if image.mode == "I" or image.mode.startswith("I;16"):
        levels = np.clip(np.asarray(image, dtype=np.int64), 0, 65535)
        image = Image.fromarray(((levels + 128) // 257).astype(np.uint8))
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image.convert("RGB")


def _middle(width, height):
    """Return the box of the largest centred square."""
    side = min(width, height)
    left, top = (width - side) / 2, (height - side) / 2
    return left, top, left + side, top + side


def _square(path, size, crop):
    """Return the box of a crop; ValueError where it does not lie within the picture."""
    if len(crop) != 3:
        raise ValueError(f"crop must be left, top and side of a square, got {tuple(crop)}")
    left, top = (whole_number("crop", number, least=0) for number in crop[:2])
    side = whole_number("crop's side", crop[2], least=1)
    if left + side > size[0] or top + side > size[1]:
        raise ValueError(
            f"the crop {left} {top} {side} (left, top, side) does not lie within {path}, which has "
            f"{size[0]}x{size[1]} pixels when upright"
        )
    return left, top, left + side, top + side


def _resized(image, image_size, box):
    size = (image_size, image_size)
    return np.asarray(image.resize(size, Image.Resampling.BILINEAR, box=box))
