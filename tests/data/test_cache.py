"""The cache: decoded once, whole or not there, rebuilt if damaged or edited."""

import json
import os
import platform
import time
import types
from pathlib import Path

import numpy as np
import pytest
from flower_files import colours, load, paint
from processes import run_python, start_python

import diffusion.data.flowers


@pytest.fixture
def decoded(monkeypatch):
    """The names of the files decoded from here on."""
    names, read = [], diffusion.data.flowers.read_image

    def noted(path, *arguments):
        names.append(Path(path).name)
        return read(path, *arguments)

    monkeypatch.setattr(diffusion.data.flowers, "read_image", noted)
    return names


def test_the_second_load_decodes_nothing_and_gives_the_same(kaggle, tmp_path, decoded):
    first = load(kaggle, tmp_path)
    assert len(decoded) == 3
    again = load(kaggle, tmp_path)
    assert len(decoded) == 3
    for field in ("images", "labels", "splits"):
        np.testing.assert_array_equal(getattr(first, field), getattr(again, field))
    for field in ("class_names", "description", "fingerprint"):
        assert getattr(first, field) == getattr(again, field)


def test_the_array_is_mapped_and_read_only(kaggle, tmp_path):
    for flowers in (load(kaggle, tmp_path), load(kaggle, tmp_path, splits=("train",))):
        assert isinstance(flowers.images, np.memmap) and flowers.images.dtype == np.uint8
        with pytest.raises(ValueError, match="read-only"):
            flowers.images[0] = 0


def test_the_cache_follows_everything_it_depends_on(kaggle, tmp_path, decoded, monkeypatch):
    def decodes(**options):
        decoded.clear()
        load(kaggle, tmp_path, **options)
        return len(decoded)

    path = kaggle / "dataset/train/2/image_1.png"
    assert decodes() == decodes(image_size=24) == decodes(fit="stretch") == 3
    assert decodes() == decodes(image_size=24) == decodes(fit="stretch") == 0
    os.utime(path, ns=(1, path.stat().st_mtime_ns + 1))
    assert decodes() == 3
    stat = path.stat()
    path.write_bytes(path.read_bytes() + b"\0")
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert decodes() == 3
    path.rename(path.with_name("image_7.png"))
    assert decodes() == 3
    path.with_name("image_7.png").unlink()
    assert decodes() == 2
    assert decodes() == 0
    monkeypatch.setattr(diffusion.data.flowers, "FORMAT", diffusion.data.flowers.FORMAT + 1)
    assert decodes() == 2


@pytest.mark.parametrize(("below", "count"), [("dataset/train/cache", 3), ("", 4)])
def test_the_cache_may_lie_among_the_pictures(kaggle, tmp_path, below, count):
    assert len(load(kaggle, tmp_path, cache_dir=kaggle / below)) == 3
    paint(kaggle / below / "dataset/train/2/stray.png")
    assert len(load(kaggle, tmp_path, cache_dir=kaggle / below)) == count


# --- damage ---


def only_entry(tmp_path):
    (entry,) = (tmp_path / "cache").iterdir()
    return entry


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("images.uint8", b"\0" * 100),
        ("images.uint8", b"\0" * (3 * 16 * 16 * 3 + 1)),
        ("images.uint8", None),
        *(("notes.json", content) for content in (b'{"count": ', b"\xff", b"[" * 100_000, None)),
        *(("notes.json", content) for content in (b"[]", b"null", b'"notes"')),
        *(("notes.json", {"count": count}) for count in (-1, "3", 1, None)),
        *(("notes.json", {"unreadable": rows}) for rows in (None, {"0": "made up"})),
    ],
)
def test_a_damaged_or_edited_entry_is_rebuilt(kaggle, tmp_path, decoded, file, content):
    load(kaggle, tmp_path)
    path = only_entry(tmp_path) / file
    if isinstance(content, dict):
        notes = json.loads(path.read_text()) | content
        content = json.dumps({key: notes[key] for key in notes if notes[key] is not None}).encode()
    path.unlink() if content is None else path.write_bytes(content)
    for _ in range(2):
        assert colours(load(kaggle, tmp_path)) == "grb" and len(decoded) == 6
    assert only_entry(tmp_path) == path.parent


@pytest.mark.slow
def test_a_new_process_does_not_believe_a_wrong_count(kaggle, tmp_path):
    load(kaggle, tmp_path)
    path = only_entry(tmp_path) / "notes.json"
    path.write_text(path.read_text().replace('"count": 3', '"count": 1'))
    program = """
import sys
from diffusion.data import load_flowers
print(len(load_flowers(sys.argv[1], 16, cache_dir=sys.argv[2], progress=False)))
"""
    assert run_python(program, kaggle, tmp_path / "cache") == "3\n"


# --- failures and other processes ---


def test_a_failure_half_way_leaves_nothing_behind(kaggle, tmp_path, monkeypatch):
    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(diffusion.data.flowers, "read_image", interrupt)
    with pytest.raises(KeyboardInterrupt):
        load(kaggle, tmp_path)
    assert list((tmp_path / "cache").iterdir()) == []


def test_a_cache_that_cannot_be_made_is_one_line_with_its_path(kaggle, tmp_path):
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(OSError) as caught:
        load(kaggle, tmp_path, cache_dir=tmp_path / "file/cache")
    assert str(tmp_path / "file/cache") in str(caught.value) and "\n" not in str(caught.value)


def test_a_full_disk_is_found_before_anything_is_decoded(kaggle, tmp_path, decoded, monkeypatch):
    monkeypatch.setattr("shutil.disk_usage", lambda _: types.SimpleNamespace(free=1000))
    with pytest.raises(OSError, match=str(tmp_path / "cache")):
        load(kaggle, tmp_path)
    assert decoded == [] and list((tmp_path / "cache").iterdir()) == []


LOAD_THAT_WAITS = """
import os, sys, time
from diffusion.data import flowers as module
read = module.read_image
def waiting(path, *arguments):
    pixels = read(path, *arguments)
    os.write(1, b"decoded\\n")
    while not os.path.exists(sys.argv[3]):
        time.sleep(0.01)
    return pixels
module.read_image = waiting
flowers = module.load_flowers(sys.argv[1], 16, cache_dir=sys.argv[2], progress=False)
print("sum", int(flowers.images.astype(int).sum()))
"""


@pytest.fixture
def twenty(tmp_path):
    for number in range(1, 21):
        paint(tmp_path / f"flowers/{number}.png", (number, 0, 0))
    return tmp_path / "flowers"


def start_load_that_waits(folder, tmp_path):
    """A process in the midst of decoding: it continues once `tmp_path / "go"` is there."""
    arguments = folder, tmp_path / "cache", tmp_path / "go"
    process = start_python("-c", LOAD_THAT_WAITS, *arguments)
    assert process.stdout.readline() == "decoded\n"
    return process


@pytest.mark.slow
def test_what_a_killed_load_leaves_is_not_taken_for_finished(twenty, tmp_path):
    process = start_load_that_waits(twenty, tmp_path)
    abandoned = only_entry(tmp_path)
    process.kill()
    process.communicate()
    assert abandoned.exists()  # the kill left it: what follows has something to get wrong
    assert load(twenty, tmp_path).images[:, 0, 0, 0].tolist() == list(range(1, 21))
    assert only_entry(tmp_path) != abandoned


@pytest.mark.slow
def test_two_loads_at_once_both_succeed(twenty, tmp_path):
    both = [start_load_that_waits(twenty, tmp_path) for _ in range(2)]
    assert len(list((tmp_path / "cache").iterdir())) == 2
    (tmp_path / "go").touch()
    lines = [process.communicate()[0].splitlines()[-1] for process in both]
    assert lines == [f"sum {210 * 16 * 16}"] * 2
    assert [process.returncode for process in both] == [0, 0]
    assert only_entry(tmp_path)


def test_what_other_processes_are_building_is_left_alone_for_a_day(kaggle, tmp_path):
    fresh = tmp_path / f"cache/.building-{os.getpid()}-0-{platform.node()}"
    elsewhere = tmp_path / "cache/.building-99999999-0-another.machine"
    old = tmp_path / "cache/.building-1-1-another.machine"
    for folder in (fresh, elsewhere, old):
        folder.mkdir(parents=True)
    os.utime(old, (0, time.time() - 2 * 24 * 3600))
    load(kaggle, tmp_path)
    assert fresh.exists() and elsewhere.exists() and not old.exists()
