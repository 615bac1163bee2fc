"""A folder -> which pictures lie in it, of which class, in which split. Nothing is decoded.

Three layouts are known: Kaggle's (`train/<class>/x.jpg`), Oxford's (`jpg/` beside
`imagelabels.mat`), and any folder of pictures, the parent folder being the class.
"""

from __future__ import annotations  # doctor.checks counts with this under old Pythons

import json
import os
import re
import warnings
from pathlib import Path
from typing import NamedTuple

SUFFIXES = {".jpg", ".jpeg", ".jfif", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff"}
SPLITS = ("train", "valid", "test")
ADVICE = "run 'make data', or pass --data-dir"


class Picture(NamedTuple):
    """A picture's file, and what its place says about it."""

    path: Path
    class_id: str | None  # None: a picture that nothing labels
    split: str  # one of SPLITS, "" where unknown


def find_pictures(folder, skip=()):
    """The data set's folder and its pictures in order: by split, class, then name.

    Where there are several data sets, one is taken and the others are named in a warning. With no
    picture at all: `folder` and an empty list. skip: as for `find_sets`. Raises ValueError where
    Oxford's label files are damaged.
    """
    sets = find_sets(folder, skip)
    if not sets:
        return folder, []
    (_, root, found), *others = sets
    others = [str(root) for plain, root, _ in others if not plain]
    if others:
        warnings.warn(f"several data sets: using {root}, not {', '.join(others)}", stacklevel=3)
    if (root / "imagelabels.mat").is_file():
        found = _label_by_number(root, found)
    return root, sorted(found, key=_order)


def find_sets(folder, skip=()):
    """The data sets at and below `folder`, best first, as (plain, root, pictures).

    A set is `plain` if no layout is known for it: then only its folders' names label it. `skip`
    holds folders that are not looked into, unless one of them is `folder` itself.
    """
    sets = {}
    skip = {Path(path).resolve() for path in skip} - {folder.resolve()}
    for parent, paths in _walk(folder, skip):
        plain, root, class_id, split = _place(parent, folder)
        found = sets.setdefault((plain, natural(str(root)), root), [])
        found.extend(Picture(path, class_id, split) for path in paths)
    order = sorted(sets, key=lambda place: place[:2])
    return [(plain, root, sets[plain, key, root]) for plain, key, root in order]


def _walk(folder, skip):
    """Each folder that holds pictures, with their paths: nothing hidden, no folder twice."""
    seen = set(skip)
    for parent, folders, files in os.walk(folder, followlinks=True):
        parent = Path(parent)
        if parent.resolve() in seen:  # a symbolic link back up would go round for ever
            folders.clear()
            continue
        seen.add(parent.resolve())
        folders[:] = sorted(f for f in folders if not f.startswith((".", "__MACOSX")))
        paths = [parent / f for f in files if not f.startswith(".")]
        paths = [path for path in paths if path.suffix.lower() in SUFFIXES and path.is_file()]
        if paths:
            yield parent, paths


def _place(parent, folder):
    """Whether `parent` is a plain folder, its data set's folder, its class and its split."""
    for root in (parent, parent.parent):
        if (root / "imagelabels.mat").is_file():
            return False, root, None, ""
    if parent.name in SPLITS:
        return False, parent.parent, None, parent.name
    if parent != folder and parent.parent.name in SPLITS:
        return False, parent.parent.parent, parent.name, parent.parent.name
    return True, folder, parent.name, ""


def _label_by_number(root, found):
    """Oxford's own layout: class and split stand in two files, by the number of the image."""
    import numpy as np  # both of no use elsewhere in this module, and scipy slow to import
    from scipy.io import loadmat

    splits = {}
    try:
        class_ids = loadmat(root / "imagelabels.mat")["labels"].ravel()
        sets = loadmat(root / "setid.mat") if (root / "setid.mat").is_file() else {}
        for split, key in zip(SPLITS, ("trnid", "valid", "tstid"), strict=True):
            splits.update(dict.fromkeys(np.ravel(sets.get(key, [])).tolist(), split))
    except Exception as error:  # whatever a damaged file makes scipy raise
        raise ValueError(f"cannot read the .mat files in {root} ({error}): {ADVICE}") from error
    labelled = []
    for picture in found:
        digits = re.search(r"([0-9]+)$", picture.path.stem)
        number = int(digits[1]) if digits else 0
        class_id = str(class_ids[number - 1]) if 1 <= number <= len(class_ids) else None
        labelled.append(Picture(picture.path, class_id, splits.get(number, "")))
    return labelled


def natural(text):
    """A sort key in which "2" comes before "10"."""
    parts = re.split(r"([0-9]+)", text)
    return tuple(int(part) if i % 2 else part for i, part in enumerate(parts)), text


def _order(picture):
    split = (*SPLITS, "").index(picture.split)
    unlabelled = picture.class_id is None
    return split, unlabelled, natural(picture.class_id or ""), natural(str(picture.path))


def name_classes(root, class_ids):
    """Names for folder names: the data's own list, else the course's for the 102 flowers."""
    shipped = Path(__file__).with_name("cat_to_name.json")
    for path in (root / shipped.name, root.parent / shipped.name, shipped):
        if path.is_file():
            try:
                names = dict(json.loads(path.read_text(encoding="utf-8")))
            except (TypeError, ValueError) as error:
                raise ValueError(f"{path} is not a JSON object of names: {error}") from error
            oxford = set(names) == set(class_ids) or (root / "imagelabels.mat").is_file()
            if path != shipped or oxford:
                return tuple(str(names.get(class_id, class_id)) for class_id in class_ids)
    return tuple(class_ids)
