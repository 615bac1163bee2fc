"""One array on disk, memory-mapped, keyed by what it depends on, written whole or not at all.

    pixels, notes = cached(folder / "flowers-64", depends_on, shape, fill)

`fill(pixels)` is called only where no finished entry has this key. It writes its rows and returns
notes (JSON) whose "count" says how many rows to keep. An entry is a folder `flowers-64-<key>` with
`images.uint8` and `notes.json`; it is built under another name and renamed when it is complete, so
that a killed process, a full disk or a second process at the same work never leaves half of one.
"""

import contextlib
import hashlib
import json
import os
import platform
import shutil
import time
import uuid

import numpy as np

_BUILDING = ".building-"


def cached(entry, depends_on, shape, fill):
    """The array and the notes of an entry, made by `fill` if they are not there.

    Args:
        entry: a path, its last part the readable half of the entry's name.
        depends_on: all that the array follows from, as JSON can write it: the key.
        shape: of the array that `fill` is handed; its first number is the most rows there may be.
        fill: `fill(pixels) -> notes`, writes into uint8 `pixels`; `notes["count"]` rows are kept.

    Returns a read-only uint8 memmap and the notes; with nothing to keep (count 0) None and the
    notes, and nothing is published. Raises OSError where the folder cannot be written, before
    `fill` is called if its space is not free, and whatever `fill` raises.
    """
    key = hashlib.sha256(json.dumps(depends_on).encode()).hexdigest()
    entry = entry.with_name(f"{entry.name}-{key[:20]}")
    _remove_abandoned(entry.parent)
    if (finished := _open(entry, shape)) is not None:
        return finished
    building = _scratch(entry.parent)
    try:
        with _explained(entry.parent):
            building.mkdir(parents=True)
            pixels = _allocate(building / "images.uint8", shape)
        notes = fill(pixels)
        with _explained(entry.parent):
            pixels.flush()
            del pixels
            if notes["count"] == 0:
                return None, notes
            os.truncate(building / "images.uint8", notes["count"] * int(np.prod(shape[1:])))
            (building / "notes.json").write_text(json.dumps(notes))
            return _publish(building, entry, shape)
    finally:
        shutil.rmtree(building, ignore_errors=True)


def _open(entry, shape):
    """A finished entry's pixels and notes; None where it is missing or damaged."""
    try:
        notes = json.loads((entry / "notes.json").read_text())
        shape = (notes["count"], *shape[1:])
        # Raises ValueError where the file is too short.
        return np.memmap(entry / "images.uint8", np.uint8, "r", shape=shape), notes
    except (OSError, ValueError, KeyError):
        return None


def _publish(building, entry, shape):
    if entry.exists() and _open(entry, shape) is None:
        damaged = _scratch(entry.parent)
        os.rename(entry, damaged)
        shutil.rmtree(damaged, ignore_errors=True)
    # Where another process was faster, its entry holds the same pixels.
    with contextlib.suppress(OSError):
        os.rename(building, entry)
    finished = _open(entry, shape)
    if finished is None:
        raise OSError(f"the entry {entry.name} cannot be put there")
    return finished


def _scratch(cache_dir):
    """A folder name nobody else uses, that tells which process made it."""
    maker = f"{os.getpid()}-{uuid.uuid4().hex[:8]}-{platform.node()}"
    return cache_dir / (_BUILDING + maker)


def _allocate(path, shape):
    """A mapped file with its space taken now: a full disk found later would kill the process."""
    size = int(np.prod(shape))
    free = shutil.disk_usage(path.parent).free
    if free < size:
        raise OSError(f"{size / 1e6:,.0f} MB needed, {free / 1e6:,.0f} MB free")
    with open(path, "wb") as file:
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(file.fileno(), 0, size)
        else:
            file.truncate(size)
    return np.memmap(path, np.uint8, "r+", shape=shape)


@contextlib.contextmanager
def _explained(cache_dir):
    try:
        yield
    except OSError as error:
        raise OSError(
            f"cannot write the cache of images in {cache_dir} ({error.strerror or error}): "
            "free some space there, or pass cache_dir, a folder that can be written"
        ) from error


def _remove_abandoned(cache_dir):
    """Remove what killed processes left: theirs if of this machine, any after a day."""
    for folder in cache_dir.glob(_BUILDING + "*"):
        with contextlib.suppress(OSError, ValueError, IndexError):
            pid, _, node = folder.name.removeprefix(_BUILDING).split("-", 2)
            killed = node == platform.node() and not _is_running(int(pid))
            if killed or time.time() - folder.stat().st_mtime > 24 * 3600:
                shutil.rmtree(folder, ignore_errors=True)


def _is_running(pid):
    if os.name == "nt":  # there, os.kill(pid, 0) would do more than ask
        return True
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True
