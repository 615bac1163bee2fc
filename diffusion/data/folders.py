"""Find the pictures under a folder, with the class and split of each; nothing is decoded.

Three layouts are known: Kaggle's (`train/<class>/x.jpg`), Oxford's (`jpg/` beside
`imagelabels.mat`), and any folder of pictures, where the parent folder is the class.
"""

from __future__ import annotations  # `make check` imports this module under old Pythons

import json
import os
import re
import stat
import warnings
from pathlib import Path
from typing import NamedTuple

# The suffixes of pictures, and the names Pillow has for their formats.
SUFFIXES = {
    **dict.fromkeys((".jpg", ".jpeg", ".jfif"), "JPEG"),
    **dict.fromkeys((".tif", ".tiff"), "TIFF"),
    **{".png": "PNG", ".webp": "WEBP", ".bmp": "BMP", ".gif": "GIF"},
}
SPLITS = ("train", "valid", "test")
ADVICE = "run 'make data', or pass --data-dir"


class Picture(NamedTuple):
    """A picture file, and what its place says about it."""

    path: Path
    size: int  # in bytes
    modified: int  # in nanoseconds
    class_id: str | None  # None: a picture without a label
    split: str  # one of SPLITS, "" where unknown


class PictureSet(NamedTuple):
    """A data set: its folder, its pictures and the names of their classes."""

    root: Path
    pictures: list[Picture]  # by split, class, then file name
    class_names: dict[str | None, str]  # class_id: name, in the order of the labels


def find_pictures(folder: Path, skip=()) -> PictureSet:
    """Find the best data set at or below `folder`; a warning names what is left out.

    With no picture at all, the result is `folder` with an empty list. skip: see `find_sets`.
    Raises ValueError if Oxford's .mat files or the list of class names cannot be read.
    """
    sets, remarks = find_sets(folder, skip)
    _, root, pictures = sets[0] if sets else (True, folder, [])
    others = [
        f"the other {len(rest):,} under {folder}" if plain else str(other)
        for plain, other, rest in sets[1:]
    ]
    if others:
        remarks.append(f"several data sets: using {root}, not {', '.join(others)}")
    for remark in remarks:
        warnings.warn(remark, stacklevel=3)
    if not pictures:
        return PictureSet(folder, [], {})
    if os.path.isfile(root / "imagelabels.mat"):
        pictures = _label_by_number(root, pictures)
    return PictureSet(root, sorted(pictures, key=_order), _name_classes(root, pictures))


def find_sets(folder: Path, skip=()) -> tuple[list[tuple[bool, Path, list[Picture]]], list[str]]:
    """Find the data sets at and below `folder`, best first, as (plain, root, pictures).

    A set is `plain` if its layout is not a known one: then only folder names label it.
    skip: folders not to look into, unless one of them is `folder` itself.
    Returns the sets and remarks for the reader: which folders could not be read, and which folders
    called train, valid or test are no splits.
    """
    blocked, sets, remarks = [], {}, []
    skip = {os.path.realpath(path) for path in skip} - {os.path.realpath(folder)}
    files = dict(_walk(folder, skip, blocked))
    places = {parent: _place(parent, folder) for parent in files}
    refused = _refused_splits(places)
    for parent, found in files.items():
        plain, root, class_id, split = places[parent]
        if split and root in refused:
            plain, root, class_id, split = True, folder, parent.name, ""
        pictures = sets.setdefault((plain, _natural(str(root)), root), [])
        pictures.extend(Picture(path, size, time, class_id, split) for path, size, time in found)
    if blocked:
        remarks.append(f"skipped {len(blocked)} unreadable folders: {first_ten(blocked)}")
    if refused:
        names = [root / split for root in refused for split in sorted(refused[root])]
        remarks.append(
            f"not taken for splits, as other pictures lie beside them: {first_ten(names)}"
        )
    order = sorted(sets, key=lambda place: place[:2])
    return [(plain, root, sets[plain, key, root]) for plain, key, root in order], remarks


def check_records(root: Path) -> None:
    """Raise ValueError if the loader would refuse the records of the data set in `root`.

    These are `cat_to_name.json` and, if scipy is installed to read them, Oxford's .mat files.
    """
    _read_names(root)
    if os.path.isfile(root / "imagelabels.mat"):
        try:
            import scipy.io  # noqa: F401
        except ImportError:
            return
        _read_labels(root)


def _walk(folder, skip, blocked):
    """Yield each folder that holds pictures, with (path, size, time) of each of them.

    Hidden folders are left out; no folder comes twice. Unreadable ones are added to `blocked`.
    """

    def on_error(error):
        if not isinstance(error, (FileNotFoundError, NotADirectoryError)):
            blocked.append(Path(error.filename))

    seen = set(skip)
    for parent, folders, files in os.walk(folder, onerror=on_error, followlinks=True):
        if os.path.realpath(parent) in seen:  # a symbolic link upwards would never end
            folders.clear()
            continue
        seen.add(os.path.realpath(parent))
        folders[:] = sorted(f for f in folders if not f.startswith((".", "__MACOSX")))
        found = []
        for path in (Path(parent, f) for f in files if not f.startswith(".")):
            if path.suffix.lower() not in SUFFIXES:
                continue
            try:
                status = path.stat()
            except PermissionError:  # the folder may be listed, its files may not be opened
                if Path(parent) not in blocked:
                    blocked.append(Path(parent))
                continue
            except OSError:  # a link to nowhere
                continue
            if stat.S_ISREG(status.st_mode):
                found.append((path, status.st_size, status.st_mtime_ns))
        if found:
            yield Path(parent), found


def _place(parent, folder):
    """Return what the path of `parent` says: (plain, root of the set, class, split)."""
    for root in (parent, parent.parent):
        if os.path.isfile(root / "imagelabels.mat"):
            return False, root, None, ""
    if parent.name in SPLITS:
        return False, parent.parent, None, parent.name
    if parent != folder and parent.parent.name in SPLITS:
        return False, parent.parent.parent, parent.name, parent.parent.name
    return True, folder, parent.name, ""


def _refused_splits(places):
    """Return {root: split names} of the folders called train, valid or test that are no splits.

    They are splits if all pictures of their root lie in them. One alone, for example `test`, is
    not enough if there are pictures of no known layout anywhere: it may be a class among others.
    """
    splits, mixed = {}, set()
    for _, root, _, split in places.values():
        if split:
            splits.setdefault(root, set()).add(split)
    for parent, (plain, root, _, _) in places.items():
        above = (path for path in (parent, *parent.parents) if path in splits)
        mixed.update(path for path in above if plain or path != root)
    if mixed or any(plain for plain, *_ in places.values()):
        mixed.update(root for root, names in splits.items() if len(names) == 1)
    return {root: names for root, names in splits.items() if root in mixed}


def _label_by_number(root, pictures):
    """Label by Oxford's two files, which give class and split by the number of the picture."""
    class_ids, splits = _read_labels(root)
    labelled = []
    for picture in pictures:
        digits = re.search(r"([0-9]+)$", picture.path.stem)
        number = int(digits[1]) if digits else 0
        class_id = str(class_ids[number - 1]) if 1 <= number <= len(class_ids) else None
        labelled.append(picture._replace(class_id=class_id, split=splits.get(number, "")))
    return labelled


def _read_labels(root):
    """Return the classes in `root`'s imagelabels.mat, and {number: split} from its setid.mat."""
    import numpy as np  # here: neither is there yet when `make check` runs
    from scipy.io import loadmat

    splits = {}
    try:
        class_ids = loadmat(root / "imagelabels.mat")["labels"].ravel()
        sets = loadmat(root / "setid.mat") if os.path.isfile(root / "setid.mat") else {}
        for split, key in (("train", "trnid"), ("valid", "valid"), ("test", "tstid")):
            splits.update(dict.fromkeys(np.ravel(sets.get(key, [])).tolist(), split))
    except Exception as error:  # a damaged file makes scipy raise anything
        raise ValueError(f"cannot read the .mat files in {root} ({error}): {ADVICE}") from error
    return class_ids, splits


def _name_classes(root, pictures):
    """Name classes by the data set's own list, the 102 flowers by the list that ships."""
    class_ids = {picture.class_id for picture in pictures}
    ordered = sorted(class_ids - {None}, key=_natural)
    names, shipped = _read_names(root)
    if shipped and set(names) != set(ordered) and not os.path.isfile(root / "imagelabels.mat"):
        names = {}
    named = {class_id: str(names.get(class_id, class_id)) for class_id in ordered}
    return {**named, None: "unknown"} if None in class_ids else named


def _read_names(root):
    """Return the names of classes by their numbers, and whether they are the list that ships."""
    shipped = Path(__file__).with_name("cat_to_name.json")
    lists = (root / shipped.name, root.parent / shipped.name, shipped)
    path = next((path for path in lists if os.path.isfile(path)), None)
    if path is None:
        return {}, True
    try:
        names = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(names, dict):
            raise ValueError(f"it holds a {type(names).__name__}")
    except (OSError, ValueError, RecursionError) as error:
        raise ValueError(
            f"{path} is not a JSON object of names ({error}): repair it, or move it away"
        ) from error
    return names, path == shipped


def _natural(text):
    """Return a sort key in which "2" comes before "10"."""
    parts = re.split(r"([0-9]+)", text)
    return tuple(int(part) if i % 2 else part for i, part in enumerate(parts)), text


def _order(picture):
    split = (*SPLITS, "").index(picture.split)
    unlabelled = picture.class_id is None
    return split, unlabelled, _natural(picture.class_id or ""), _natural(str(picture.path))


def first_ten(paths):
    """List the first ten paths."""
    more = f" and {len(paths) - 10} more" if len(paths) > 10 else ""
    return ", ".join(repr(str(path)) for path in paths[:10]) + more
