"""Keep one array on disk, memory-mapped, under a key of all it depends on, whole or not at all.

    pixels, notes = cached(folder / "flowers-64", depends_on, shape, fill)

`fill(pixels)` is called only if no sound entry has this key. It writes the rows and returns notes
(JSON) whose "count" says how many rows to keep. An entry is a folder `flowers-64-<key>` with
`images.uint8` and `notes.json`, sealed by a hash. It is built under another name and renamed when
complete, so that a killed process, a full disk or a second process never leaves half of one. An
entry that was damaged or edited is built again.
"""

import contextlib
import hashlib
import json
import os
import platform
import shutil
import time
import uuid
from collections.abc import Callable
from pathlib import Path

import numpy as np

_BUILDING = ".building-"


def cached(
    entry: Path, depends_on, shape: tuple[int, ...], fill: Callable[[np.ndarray], dict]
) -> tuple[np.ndarray, dict]:
    """Open the array and the notes of an entry; build it with `fill` if it is not there.

    Args:
        entry: a path whose last part is the readable half of the entry's name.
        depends_on: all that the array follows from, as JSON can write it: the key.
        shape: of the array that `fill` receives; its first number is the most rows possible.
        fill: `fill(pixels) -> notes` writes into uint8 `pixels`; `notes["count"]` rows are kept.

    Returns a read-only uint8 memmap and the notes; if the count is 0, an empty array, and nothing
    is kept on disk. Raises OSError if the folder cannot be written (before `fill` is
    called if the disk lacks the space), and whatever `fill` raises.
    """
    entry = entry.with_name(f"{entry.name}-{hash_of(depends_on)[:20]}")
    _remove_abandoned(entry.parent)
    if (finished := _open(entry, shape)) is not None:
        return finished
    # A folder name that nobody else uses, and that tells which process made it.
    maker = f"{os.getpid()}-{uuid.uuid4().hex[:8]}-{platform.node()}"
    building = entry.parent / (_BUILDING + maker)
    try:
        with _explained(entry.parent):
            building.mkdir(parents=True)
            pixels = _allocate(building / "images.uint8", shape)
        notes = json.loads(json.dumps(fill(pixels)))  # as it will be read again
        with _explained(entry.parent):
            pixels.flush()
            del pixels
            if notes["count"] == 0:
                return np.empty((0, *shape[1:]), np.uint8), notes
            os.truncate(building / "images.uint8", notes["count"] * int(np.prod(shape[1:])))
            sealed = {**notes, "seal": _seal(notes, entry)}
            (building / "notes.json").write_text(json.dumps(sealed))
            return _publish(building, entry, shape)
    finally:
        shutil.rmtree(building, ignore_errors=True)


def hash_of(content) -> str:
    """Return the SHA-256 of what JSON can write, in hexadecimal."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _open(entry, shape):
    """Return an entry's pixels and notes, or None if it is missing, damaged or edited."""
    try:
        notes = json.loads((entry / "notes.json").read_text())
        if notes.pop("seal") != _seal(notes, entry):
            return None
        shape = (notes["count"], *shape[1:])
        if (entry / "images.uint8").stat().st_size != np.prod(shape, dtype=np.int64):
            return None
        return np.memmap(entry / "images.uint8", np.uint8, "r", shape=shape), notes
    except (OSError, ValueError, TypeError, AttributeError, KeyError, RecursionError):
        return None


def _seal(notes, entry):
    """Return a hash that changes with any edit of the notes, and with the entry's name."""
    return hash_of([entry.name, notes])[:20]


def _publish(building, entry, shape):
    if entry.exists() and _open(entry, shape) is None:  # damaged
        shutil.rmtree(entry, ignore_errors=True)
    # If another process was faster, its entry holds the same pixels.
    with contextlib.suppress(OSError):
        os.rename(building, entry)
    finished = _open(entry, shape)
    if finished is None:
        raise OSError(f"the entry {entry.name} cannot be put there")
    return finished


def _allocate(path, shape):
    """Map a file and take its space now: a disk that fills up later would kill the process."""
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
            f"cannot write the cache of images in {cache_dir} ({error.strerror or error}): free "
            "some space there, make it writable, or link it to another folder (Python: cache_dir=)"
        ) from error


def _remove_abandoned(cache_dir):
    """Remove what killed processes left: at once if they ran on this machine, else after a day."""
    for folder in cache_dir.glob(_BUILDING + "*"):
        with contextlib.suppress(OSError, ValueError, IndexError):
            pid, _, node = folder.name.removeprefix(_BUILDING).split("-", 2)
            killed = node == platform.node() and not _is_running(int(pid))
            if killed or time.time() - folder.stat().st_mtime > 24 * 3600:
                shutil.rmtree(folder, ignore_errors=True)


def _is_running(pid):
    if os.name == "nt":  # there, os.kill(pid, 0) would end the process
        return True
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True
