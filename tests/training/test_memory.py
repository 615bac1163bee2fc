"""Data sets larger than memory work through the memory-mapped cache.

Each test caps a process of its own a little above what it uses, and gives it more images than fit
below the cap, which is checked in the same process. The cap is RLIMIT_DATA: memory allocated and
mapped privately; a mapped file does not count, as its pages can be dropped.
"""

import sys

import pytest
from PIL import Image
from processes import run_python

ON_LINUX = sys.platform == "linux"
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not ON_LINUX, reason="RLIMIT_DATA counts mapped memory on Linux only"),
]

CAP = """
import re, resource, sys
from pathlib import Path
import numpy as np

def cap(megabytes):
    used = int(re.search(r"VmData:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1])
    limit = used * 1024 + megabytes * 10**6
    resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))

def must_not_fit(make):
    try:
        make()
    except MemoryError:
        return
    sys.exit("the cap caps nothing")

folder = Path(sys.argv[1])
"""

DECODE = """
from PIL import Image
from diffusion.data import load_flowers

cap(100)
options = {"cache_dir": folder / "cache", "progress": False}
flowers = load_flowers(folder / "jpg", 256, **options)
assert flowers.images.nbytes == 1200 * 256 * 256 * 3
some = load_flowers(folder / "jpg", 256, splits=("train", "test"), **options)
assert some.images.nbytes == 800 * 256 * 256 * 3
np.testing.assert_array_equal(some.images[-1], Image.open(folder / "picture.bmp"))
must_not_fit(lambda: np.array(some.images))
"""

TRAIN = """
from diffusion.data import painting
from diffusion.training.config import get_preset
from diffusion.data import halve, load_flowers
from diffusion.training.loop import build, train

def paint(count, image_size, seed, progress, out):  # a few of them; the others stay black
    out[:1000] = np.random.default_rng(seed).integers(0, 256, out[:1000].shape, "uint8")
    return out, np.zeros(count, int)

painting.paint_flowers = paint
config = get_preset("tiny", image_size=64, half_size_epochs=1)

def last_half_size_step_and_first_full_size_step(count):
    flowers = load_flowers("painted", 64, painted=count, cache_dir=folder, progress=False)
    steps = count // config.batch_size
    model = build(config, 1, 32)
    model.optimizer.iterations.assign(steps - 1)
    options = {"model": model, "max_steps": steps + 1, "sample_every": 0, "verbose": 0}
    run = train(config, flowers, folder / str(count), **options)
    assert run.model.image_size == 64 and len(run.losses) == 2, run.record
    return flowers.images

last_half_size_step_and_first_full_size_step(16)  # so that the cap leaves this out
cap(280)
images = last_half_size_step_and_first_full_size_step(100_000)
assert images.nbytes == 100_000 * 64 * 64 * 3
must_not_fit(lambda: np.array(images))
must_not_fit(lambda: halve(images))
"""


def run(program, folder):
    try:
        run_python(CAP + program, folder)
    finally:  # up to 1.2 GB
        for file in folder.rglob("images.uint8"):
            file.unlink()


def test_images_beyond_the_memory_are_decoded_and_selected(tmp_path):
    picture = tmp_path / "picture.bmp"
    Image.effect_noise((256, 256), 60).convert("RGB").save(picture)
    for split in ("train", "valid", "test"):
        (tmp_path / "jpg" / split / "1").mkdir(parents=True)
        for number in range(400):
            (tmp_path / "jpg" / split / "1" / f"{number}.bmp").hardlink_to(picture)
    run(DECODE, tmp_path)


def test_images_beyond_the_memory_are_trained_on_at_half_and_at_full_size(tmp_path):
    run(TRAIN, tmp_path)
