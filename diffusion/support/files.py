"""Write files whole or not at all, lock folders, and lay out images in a grid."""

import contextlib
import errno
import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

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
    return _laid_out(_as_bytes(images), columns)


def save_image_grid(
    path: Path | str,
    images: np.ndarray,
    columns: int | None = None,
    scale: int = 1,
    names: Sequence[str] | None = None,
) -> None:
    """Save images (N, S, S, 3) in [0, 1] as one picture file, each pixel `scale` wide.

    names: one for each image, written below it.
    """
    cells = _as_bytes(images).repeat(scale, axis=1).repeat(scale, axis=2)
    if names is not None:
        cells = np.concatenate([cells, captions(names, cells.shape[2])], axis=1)
    picture = Image.fromarray(_laid_out(cells, columns))
    with written_whole(path) as temporary:
        picture.save(temporary)


def captions(names: Sequence[str], width: int) -> np.ndarray:
    """Write names in black on white: uint8 (N, height, width, 3), all as high as the highest.

    A name too long for a line is continued on a second one, and what does not fit there is cut.
    """
    import matplotlib  # here: for its font, since Pillow's own has ASCII letters alone

    size = max(11, width // 10)
    font = ImageFont.truetype(matplotlib.get_data_path() + "/fonts/ttf/DejaVuSans.ttf", size)
    texts = [_wrapped(name, font, width - 8) for name in names]
    height = 8 + (size + 5) * max(text.count("\n") + 1 for text in texts)
    bands = []
    for text in texts:
        band = Image.new("RGB", (width, height), "white")
        ImageDraw.Draw(band).multiline_text(
            (width / 2, 3), text, "black", font, anchor="ma", align="center"
        )
        bands.append(np.asarray(band))
    return np.stack(bands)


def _wrapped(name, font, width):
    """Return a name in one or two lines, neither of them wider than `width` pixels."""
    lines = [""]
    for word in name.split():
        longer = f"{lines[-1]} {word}".strip()
        if lines[-1] and len(lines) < 2 and font.getlength(longer) > width:
            lines.append(word)
        else:
            lines[-1] = longer
    return "\n".join(_shortened(line, font, width) for line in lines)


def _shortened(line, font, width):
    if font.getlength(line) <= width:
        return line
    while line and font.getlength(f"{line}…") > width:
        line = line[:-1]
    return f"{line.rstrip()}…"


def _as_bytes(images):
    return np.round(np.asarray(images) * 255).astype("uint8")


def _laid_out(cells, columns):
    """Lay out uint8 cells (N, height, width, 3) in rows of `columns`, by default up to ten."""
    count, height, width, channels = cells.shape
    columns = min(columns or 10, count)
    rows = -(-count // columns)
    blank = np.full((rows * columns - count, height, width, channels), 255, "uint8")
    cells = np.concatenate([cells, blank]).reshape(rows, columns, height, width, channels)
    return cells.transpose(0, 2, 1, 3, 4).reshape(rows * height, columns * width, channels)
