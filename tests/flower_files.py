"""Pictures on disk for the tests of the data wing, and how they load them."""

import contextlib
import json
import os
import tempfile
from pathlib import Path

from PIL import Image

from diffusion.data.flowers import load_flowers

RED, GREEN, BLUE = (255, 0, 0), (0, 255, 0), (0, 0, 255)


def paint(path, colour=RED, size=(40, 30), mode="RGB", **options):
    """Save a picture of one colour."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, colour).convert(mode).save(path, **options)
    return path


def kaggle_layout(root):
    """Three pictures in Kaggle's layout, with a name for one of the two classes."""
    paint(root / "dataset/train/10/image_2.png", RED)
    paint(root / "dataset/train/2/image_1.png", GREEN)
    paint(root / "dataset/valid/10/image_3.png", BLUE)
    (root / "cat_to_name.json").write_text(json.dumps({"10": "globe thistle"}))
    return root


def load(folder, tmp_path, image_size=16, **options):
    """Load with a cache under `tmp_path`."""
    options = {"cache_dir": tmp_path / "cache", "progress": False, **options}
    return load_flowers(folder, image_size, **options)


def colours(flowers):
    """The red, green or blue of each image, as a letter."""
    return "".join("rgb"[i] for i in flowers.images.mean(axis=(1, 2)).argmax(axis=1))


@contextlib.contextmanager
def ordinary_user():
    """Give up root's right to read everything; give a folder that is still accessible."""
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o777)
        if os.geteuid():
            yield Path(folder)
            return
        os.seteuid(65534)
        try:
            yield Path(folder)
        finally:
            os.seteuid(0)
