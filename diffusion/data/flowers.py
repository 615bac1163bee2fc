"""Load flowers: find the pictures, decode each once, map them as one uint8 array with labels.

The chapter's pipeline (listing 8-2) decodes every picture again in every epoch. Here a folder is
decoded once, into a cache entry keyed by all that its pixels depend on, and mapped from then on.
"""

import ast
import hashlib
import os
import re
import warnings
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image
from tqdm import tqdm

from diffusion.data.cache import cached, hash_of
from diffusion.data.folders import ADVICE, find_pictures, first_ten
from diffusion.data.photographs import read_image
from diffusion.data.splits import select
from diffusion.support.paths import data_home
from diffusion.support.validation import whole_number

FITS = {"crop": "centre crop", "stretch": "stretched"}
FORMAT = 1  # of the cache: raise it when the same files would give other pixels


@dataclass(frozen=True, eq=False)
class Flowers:
    """Images with their labels, all of one size.

    Row i of `images`, `labels` and `splits` is one flower; `images` is read-only.
    """

    images: np.ndarray  # uint8 (N, S, S, 3), memory-mapped
    labels: np.ndarray  # int64 (N,), index into class_names
    class_names: tuple[str, ...]
    splits: np.ndarray  # str (N,), "train", "valid" or "test", "" where unknown
    name: str  # short, for folder names: "painted", or the data folder's own
    description: str  # one line for people
    fingerprint: str = ""  # the same for the same data wherever it lies; "" if unknown

    def __len__(self):
        return len(self.images)


def load_flowers(
    data_dir: Path | str | None = None,
    image_size: int = 64,
    fit: str = "crop",
    *,
    splits: str | tuple[str, ...] | None = None,
    cache_dir: Path | str | None = None,
    painted: int = 4000,
    seed: int = 0,
    progress: bool = True,
) -> Flowers:
    """Load flowers: decoded the first time, mapped from the cache ever after.

    Args:
        data_dir: the data set's folder or one above it, laid out as Kaggle does
            (`train/<class>/x.jpg`), as Oxford does (`jpg/` beside `imagelabels.mat`), or any
            folder of pictures, where the parent folder is the class. "painted": painted flowers.
            None: the environment's DATA_DIR, else what is under the project's `data/`, or painted
            flowers if there is nothing.
        image_size: S, at least 8.
        fit: "crop" resizes the largest centred square; "stretch" resizes the whole picture and
            gives up its aspect ratio, as listing 8-2 does. Both are bilinear and, unlike Keras's
            loader, antialiased: without that, a model learns to draw jagged petals.
        splits: for example ("train",); None takes all. Splits that are not neighbours in the
            order train, valid, test get a cache entry of their own.
        cache_dir: default the project's `data/cache`.
        painted, seed: how many painted flowers, and which.
        progress: show a progress bar while decoding.

    Unreadable files are skipped, and named in one warning. Raises FileNotFoundError if there is
    nothing to read, ValueError for a bad argument, OSError if the cache cannot be written.
    Source: listing 8-2.
    """
    image_size = whole_number("image_size", image_size, least=8)
    painted, seed = whole_number("painted", painted, least=1), whole_number("seed", seed, least=0)
    if fit not in FITS:
        raise ValueError(f"fit must be one of {', '.join(FITS)}, got {fit!r}")
    data_dir = os.environ.get("DATA_DIR") or None if data_dir is None else data_dir
    if data_dir == "":
        raise ValueError("data_dir is '': name a folder of flowers, or 'painted'")
    cache = _absolute(data_home() / "cache" if cache_dir is None else cache_dir)
    folder = _absolute(data_home() if data_dir is None else data_dir)
    found = None
    if data_dir != "painted":
        found = find_pictures(folder, skip=(cache, data_home() / "cache"))
    if found and found.pictures:
        flowers = _load_found(found, folder, image_size, fit, cache, progress)
    elif data_dir in (None, "painted"):
        flowers = _load_painted(painted, image_size, seed, cache, progress)
    else:
        raise FileNotFoundError(f"no images under {data_dir}: {ADVICE}")
    return flowers if splits is None else select(flowers, splits, cache)


def _absolute(path):
    return Path(os.path.abspath(os.path.expanduser(path)))


def _load_found(found, folder, image_size, fit, cache_dir, progress):
    root, pictures, names = found
    inside = root if root.is_relative_to(folder) else folder
    name = inside.parent.name if inside.name in ("dataset", "jpg") else inside.name
    name = re.sub(r"[^\w.-]+", "-", name).strip("-.") or "flowers"
    files = [(os.path.relpath(p.path, root), p.size, p.modified) for p in pictures]
    images, notes = cached(
        cache_dir / f"{name[:40]}-{image_size}-{fit}",
        [FORMAT, [image_size, fit, files]],
        (len(pictures), image_size, image_size, 3),
        lambda pixels: _decode_all(pixels, [picture.path for picture in pictures], fit, progress),
    )
    unreadable = {int(row): reason for row, reason in notes["unreadable"].items()}
    if unreadable:
        _report({files[row][0]: reason for row, reason in unreadable.items()}, len(files), folder)
        pictures = [picture for row, picture in enumerate(pictures) if row not in unreadable]
    present = {picture.class_id for picture in pictures}
    class_ids = [class_id for class_id in names if class_id in present]
    label_of = {class_id: label for label, class_id in enumerate(class_ids)}
    labels = np.array([label_of[picture.class_id] for picture in pictures], dtype=np.int64)
    splits = np.array([picture.split for picture in pictures], dtype="U5")
    data = [notes["content"], image_size, fit, labels.tolist(), splits.tolist()]
    # The data set's own name, not its path: the same wherever the reader has put it.
    description = f"{len(images):,} flowers from {name}, {image_size}x{image_size}, {FITS[fit]}"
    return Flowers(
        images=images,
        labels=labels,
        class_names=tuple(names[class_id] for class_id in class_ids),
        splits=splits,
        name=name,
        description=description,
        fingerprint=hash_of(data)[:16],
    )


def _decode_all(pixels, paths, fit, progress):
    """Decode `paths` into the rows of `pixels`; unreadable files leave no gap."""

    def read(row):
        try:
            pixels[row] = read_image(paths[row], pixels.shape[1], fit)
            with open(paths[row], "rb") as file:
                return hashlib.file_digest(file, "sha256").digest(), None
        except Exception as error:  # a damaged file makes a decoder raise anything
            return b"", f"{type(error).__name__}: {error}"

    unreadable, content = {}, hashlib.sha256()
    with warnings.catch_warnings(), ThreadPoolExecutor(min(16, os.cpu_count() or 1)) as pool:
        warnings.simplefilter("ignore")  # about odd metadata
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        # A thousand at a time: a queued task takes a tenth of the memory of its pixels.
        blocks = (range(len(paths))[start : start + 1000] for start in range(0, len(paths), 1000))
        results = (result for block in blocks for result in pool.map(read, block))
        for row, (digest, reason) in enumerate(
            tqdm(results, "decoding", len(paths), unit=" images", disable=not progress)
        ):
            content.update(digest)
            if reason:
                unreadable[row] = reason
    kept = [row for row in range(len(paths)) if row not in unreadable]
    for target, row in enumerate(kept):
        if target != row:
            pixels[target] = pixels[row]
    return {"count": len(kept), "unreadable": unreadable, "content": content.hexdigest()}


def _report(unreadable, count, folder):
    if len(unreadable) == count:
        path, reason = next(iter(unreadable.items()))
        raise FileNotFoundError(
            f"none of the {count} pictures under {folder} can be read "
            f"({path!r}: {reason}): {ADVICE}"
        )
    warnings.warn(
        f"skipped {len(unreadable)} of {count} pictures under {folder}, unreadable: "
        f"{first_ten(list(unreadable))}",
        stacklevel=4,
    )


def _load_painted(count, image_size, seed, cache_dir, progress):
    from diffusion.data import painting, species  # here, so that real flowers never wait for it

    def fill(pixels):
        _, labels = painting.paint_flowers(
            count, image_size=image_size, seed=seed, progress=progress, out=pixels
        )
        return {"count": count, "labels": np.asarray(labels).tolist()}

    painter = hash_of([_code(species), _code(painting)])[:16]
    follows_from = [count, image_size, seed, painter]
    images, notes = cached(
        cache_dir / f"painted-{image_size}",
        [FORMAT, follows_from],
        (count, image_size, image_size, 3),
        fill,
    )
    return Flowers(
        images=images,
        labels=np.array(notes["labels"], dtype=np.int64),
        class_names=tuple(painting.SPECIES),
        splits=np.full(count, "", dtype="U5"),
        name="painted",
        description=f"{count:,} painted flowers, {image_size}x{image_size}, seed {seed}",
        fingerprint=hash_of(follows_from)[:16],
    )


def _code(module):
    """Return a module's code without comments and docstrings, which change no pixel."""
    tree = ast.parse(Path(str(module.__file__)).read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef)):
            node.body = node.body[ast.get_docstring(node) is not None :]
    return ast.unparse(tree)
