"""Find flowers -> decode each once -> one memory-mapped uint8 array with labels.

The chapter's pipeline (listing 8-2) decodes every picture again in every epoch. Here a folder is
decoded once, into a cache entry keyed by all that its pixels depend on, and mapped from then on.
"""

import hashlib
import os
import re
import warnings
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps
from tqdm import tqdm

from diffusion.data.cache import cached
from diffusion.data.folders import ADVICE, SPLITS, find_pictures, name_classes, natural
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

    def __len__(self):
        return len(self.images)


def load_flowers(
    data_dir=None,
    image_size=64,
    fit="crop",
    *,
    splits=None,
    cache_dir=None,
    painted=4000,
    seed=0,
    progress=True,
):
    """Load flowers as `Flowers`: decoded the first time, from the cache ever after.

    Args:
        data_dir: the data set's folder or one above it, laid out as Kaggle does
            (`train/<class>/x.jpg`), as Oxford does (`jpg/` beside `imagelabels.mat`), or any
            folder of pictures, the parent folder being the class. None: what is under the
            project's `data/`, painted flowers if nothing is. "painted": painted ones.
        image_size: S, at least 8.
        fit: "crop" resizes the largest centred square; "stretch" the whole picture, giving up
            its aspect ratio as listing 8-2 does. Both are bilinear and, unlike Keras's loader,
            antialiased: shrinking without gives jagged petals that a model learns to draw.
        splits: for example ("train",); None takes all. Splits that do not lie next to each
            other in train, valid, test get a cache entry of their own.
        cache_dir: default `data/cache` of the project.
        painted, seed: how many painted flowers, and which.
        progress: show a bar while decoding.

    Unreadable files are skipped, and named in one warning. Raises FileNotFoundError where
    there is nothing to read, ValueError for a bad argument, OSError where the cache cannot be
    written. Source: listing 8-2.
    """
    image_size = whole_number("image_size", image_size, least=8)
    painted, seed = whole_number("painted", painted, least=1), whole_number("seed", seed, least=0)
    if fit not in FITS:
        raise ValueError(f"fit must be one of {', '.join(FITS)}, got {fit!r}")
    cache_dir = _absolute(data_home() / "cache" if cache_dir is None else cache_dir)
    folder = _absolute(data_home() if data_dir is None else data_dir)
    root, found = None, []
    if data_dir != "painted":
        root, found = find_pictures(folder, skip=(cache_dir, data_home() / "cache"))
    if found:
        flowers = _load_found(root, found, folder, image_size, fit, cache_dir, progress)
        # The data set's own name, not its path: the same wherever the reader has put it.
        frame = f"{image_size}x{image_size}, {FITS[fit]}"
        about = f"{len(flowers):,} flowers from {flowers.name}, {frame}"
        flowers = replace(flowers, description=about)
    elif data_dir in (None, "painted"):
        flowers = _load_painted(painted, image_size, seed, cache_dir, progress)
    else:
        raise FileNotFoundError(f"no images under {data_dir}: {ADVICE}")
    return flowers if splits is None else _select(flowers, splits, cache_dir)


def read_image(path, image_size, fit="crop"):
    """Read one picture as uint8 (image_size, image_size, 3), upright.

    Grey, palette, CMYK and 16-bit pictures become RGB; what is transparent becomes white.
    """
    with Image.open(path) as image:
        # A JPEG can be decoded at 1/2, 1/4 or 1/8: twice the target leaves the resize its work.
        image.draft("RGB", (2 * image_size, 2 * image_size))
        image = _to_rgb(ImageOps.exif_transpose(image))
    width, height = image.size
    side, box = min(width, height), None
    if fit == "crop":
        left, top = (width - side) / 2, (height - side) / 2
        box = (left, top, left + side, top + side)
    image = image.resize((image_size, image_size), Image.Resampling.BILINEAR, box=box)
    return np.asarray(image)


def _to_rgb(image):
    if image.mode == "I" or image.mode.startswith("I;16"):
        levels = np.clip(np.asarray(image, dtype=np.int64), 0, 65535)
        image = Image.fromarray(((levels + 128) // 257).astype(np.uint8))
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image.convert("RGB")


def _absolute(path):
    return Path(os.path.abspath(os.path.expanduser(path)))


# --- loading: pictures -> Flowers ---


def _load_found(root, found, folder, image_size, fit, cache_dir, progress):
    paths = [os.path.relpath(picture.path, root) for picture in found]
    stats = [picture.path.stat() for picture in found]
    files = [(p, s.st_size, s.st_mtime_ns) for p, s in zip(paths, stats, strict=True)]
    inside = root if root.is_relative_to(folder) else folder
    name = inside.parent.name if inside.name in ("dataset", "jpg") else inside.name
    name = re.sub(r"[^\w.-]+", "-", name).strip("-.") or "flowers"

    def fill(pixels):
        return _decode_all(pixels, [picture.path for picture in found], fit, progress)

    shape = (len(found), image_size, image_size, 3)
    entry = cache_dir / f"{name[:40]}-{image_size}-{fit}"
    images, notes = cached(entry, [FORMAT, [image_size, fit, files]], shape, fill)
    unread = {int(row): reason for row, reason in notes["unreadable"].items()}
    _report(unread, paths, folder)
    found = [picture for row, picture in enumerate(found) if row not in unread]
    class_ids = sorted({p.class_id for p in found if p.class_id is not None}, key=natural)
    class_names = name_classes(root, class_ids)
    if any(picture.class_id is None for picture in found):
        class_ids, class_names = [*class_ids, None], (*class_names, "unknown")
    index = {class_id: label for label, class_id in enumerate(class_ids)}
    return Flowers(
        images=images,
        labels=np.array([index[picture.class_id] for picture in found], dtype=np.int64),
        class_names=class_names,
        splits=np.array([picture.split for picture in found], dtype="U5"),
        name=name,
        description="",
    )


def _decode_all(pixels, paths, fit, progress):
    """Read `paths` into the rows of `pixels`, those of unreadable ones closed up."""

    def read(row):
        try:
            pixels[row] = read_image(paths[row], pixels.shape[1], fit)
        except Exception as error:  # whatever a damaged file makes a decoder raise
            return f"{type(error).__name__}: {error}"

    unreadable = {}
    with warnings.catch_warnings(), ThreadPoolExecutor(min(16, os.cpu_count() or 1)) as pool:
        warnings.simplefilter("ignore")  # of odd metadata
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        # A thousand at a time: a task in the queue takes a tenth of the memory of its pixels.
        blocks = (range(len(paths))[start : start + 1000] for start in range(0, len(paths), 1000))
        reasons = (reason for block in blocks for reason in pool.map(read, block))
        for row, reason in enumerate(
            tqdm(reasons, "decoding", len(paths), unit=" images", disable=not progress)
        ):
            if reason:
                unreadable[row] = reason
    kept = [row for row in range(len(paths)) if row not in unreadable]
    for target, row in enumerate(kept):
        if target != row:
            pixels[target] = pixels[row]
    return {"count": len(kept), "unreadable": unreadable}


def _report(unreadable, paths, folder):
    if not unreadable:
        return
    if len(unreadable) == len(paths):
        row, reason = next(iter(unreadable.items()))
        raise FileNotFoundError(
            f"none of the {len(paths)} images under {folder} can be read "
            f"({paths[row]!r}: {reason}): {ADVICE}"
        )
    names = ", ".join(repr(paths[row]) for row in list(unreadable)[:10])
    more = f" and {len(unreadable) - 10} more" if len(unreadable) > 10 else ""
    warnings.warn(
        f"skipped {len(unreadable)} of {len(paths)} images under {folder}, unreadable: "
        f"{names}{more}",
        stacklevel=4,
    )


def _load_painted(count, image_size, seed, cache_dir, progress):
    from diffusion.data import painting, species  # here, so that real flowers never wait for it

    def fill(pixels):
        _, labels = painting.paint_flowers(
            count, image_size=image_size, seed=seed, progress=progress, out=pixels
        )
        return {"count": count, "labels": np.asarray(labels).tolist()}

    sources = b"".join(Path(str(module.__file__)).read_bytes() for module in (species, painting))
    painter = hashlib.sha256(sources).hexdigest()
    images, notes = cached(
        cache_dir / f"painted-{image_size}",
        [FORMAT, [count, image_size, seed, painter]],
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
    )


def _select(flowers, splits, cache_dir):
    splits = (splits,) if isinstance(splits, str) else tuple(splits)
    present = [split for split in SPLITS if split in flowers.splits]
    for split in splits:
        if split not in present:
            choices = ", ".join(present) or f"none ({flowers.name} has no splits)"
            raise ValueError(f"unknown split {split!r}: choices are {choices}")
    if not splits:
        raise ValueError(f"splits is empty: choices are {', '.join(present) or None}")
    rows = np.flatnonzero(np.isin(flowers.splits, splits))
    if len(rows) == rows[-1] - rows[0] + 1:
        images = flowers.images[rows[0] : rows[-1] + 1]
    else:
        images = _gather(flowers.images, rows, splits, cache_dir)
    total, rest = flowers.description.split(" ", 1)
    return Flowers(
        images=images,
        labels=flowers.labels[rows],
        class_names=flowers.class_names,
        splits=flowers.splits[rows],
        name=flowers.name,
        description=f"{len(images):,} of {total} {rest}, splits {', '.join(splits)}",
    )


def _gather(images, rows, splits, cache_dir):
    """Copy rows that lie apart to a mapped file: together they may be more than fits in memory."""

    def fill(pixels):
        for target, row in enumerate(rows):
            pixels[target] = images[row]
        return {"count": len(rows)}

    source = Path(images.filename).parent.name  # it ends with the key of all these pixels
    entry = cache_dir / "-".join([source, *splits])
    key = [source, hashlib.sha256(rows.tobytes()).hexdigest()]
    return cached(entry, key, (len(rows), *images.shape[1:]), fill)[0]
