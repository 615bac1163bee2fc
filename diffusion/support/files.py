"""Write files whole or not at all, lock folders, and lay out images in a grid."""

import contextlib
import errno
import json
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]


@contextlib.contextmanager
def written_whole(path: Path | str) -> Iterator[Path]:
    """Yield a temporary path to write to; rename it to `path` unless an exception is raised.

    A reader, or a run restarted after a crash, sees the old file or the new one, never half of one.
    The temporary file lies beside `path` and has its suffix. Raises OSError, naming `path`, where
    the disk is full.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.stem}.partial{path.suffix}")
    try:
        yield temporary
        with open(temporary, "r+b") as file:  # Windows flushes no file opened to read
            os.fsync(file.fileno())  # so that not even a power cut leaves half of it
        os.replace(temporary, path)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise OSError(
            error.errno, f"the disk is full: {path} was not written, what it held before is intact"
        ) from error
    finally:
        temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def folder_lock(folder: Path | str, doing: str = "training") -> Iterator[None]:
    """Create `folder` and lock it for this process; the system releases the lock of a dead process.

    doing: what the message says that another process does there. Raises FileExistsError if another
    process holds the lock, OSError if the folder cannot be written to. Systems without flock, such
    as Windows, have no lock.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / ".lock", "w") as lock:
        if fcntl is not None:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise FileExistsError(
                    f"another process is {doing} in {folder}: wait for it, or choose another folder"
                ) from error
        yield


def write_json(path: Path | str, content: object) -> None:
    """Write `content` as JSON, whole or not at all."""
    with written_whole(path) as temporary:
        temporary.write_text(json.dumps(content, indent=1) + "\n")


def image_grid(images: np.ndarray, columns: int | None = None) -> np.ndarray:
    """Lay out images (N, S, S, 3) in [0, 1] in a grid: one uint8 image (rows*S, columns*S, 3).

    columns: default one row of up to ten. The last row is filled up with white.
    """
    images = np.round(np.asarray(images) * 255).astype("uint8")
    count, height, width, channels = images.shape
    columns = min(columns or 10, count)
    rows = -(-count // columns)
    blank = np.full((rows * columns - count, height, width, channels), 255, "uint8")
    cells = np.concatenate([images, blank]).reshape(rows, columns, height, width, channels)
    return cells.transpose(0, 2, 1, 3, 4).reshape(rows * height, columns * width, channels)


def save_image_grid(
    path: Path | str, images: np.ndarray, columns: int | None = None, scale: int = 1
) -> None:
    """Save images (N, S, S, 3) in [0, 1] as one picture file, each pixel `scale` wide."""
    picture = Image.fromarray(image_grid(images, columns))
    picture = picture.resize(
        (picture.width * scale, picture.height * scale), Image.Resampling.NEAREST
    )
    with written_whole(path) as temporary:
        picture.save(temporary)
