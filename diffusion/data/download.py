"""The keyless way to the Oxford 102 flowers: fetch, verify, unpack safely, arrange.

All work happens in one hidden folder beside the final one; the final folder appears by a single
rename when everything in it is complete. A call that was stopped, at any moment and by anything,
goes on from the bytes it has.
"""

import contextlib
import fcntl
import shutil
import sys
import tarfile
import zlib
from pathlib import Path, PurePosixPath

from scipy.io import loadmat

from diffusion.data.http import (
    DownloadError,
    check_disk,
    disk_full_in_one_line,
    fetch,
    progress,
    say,
)

OXFORD_URL = "https://www.robots.ox.ac.uk/~vgg/data/flowers/102/"
OXFORD_MD5 = {
    "imagelabels.mat": "e0620be6f572b9609742df49c70aed4d",
    "setid.mat": "a5357ecc9cb78c4bef273ce3793fc85c",
    "102flowers.tgz": "52808999861908f626f3c1f4e79d11fa",
}
SPLIT_KEYS = {"train": "trnid", "valid": "valid", "test": "tstid"}  # our folder: key in setid.mat
CLASSES = 102
BLOCK = 4096  # a small file takes a whole block of the disk


def download_oxford(data_dir, base_url=OXFORD_URL, checksums=OXFORD_MD5, retries=5, backoff=1.0):
    """Bring the Oxford 102 flowers into `<data_dir>/oxford-102-flowers`, or finish doing so.

    Arguments:
        data_dir: folder for data sets; made if missing.
        base_url: where the three files lie, for a mirror.
        checksums: MD5 of each of the three files, by name.
        retries, backoff: as for `fetch`.

    Returns the folder: `dataset/<train|valid|test>/<1..102>/image_NNNNN.jpg`, `cat_to_name.json`.
    Raises DownloadError; whatever is complete by then is kept for the next call.
    Source: Nilsback and Zisserman, 2008, https://www.robots.ox.ac.uk/~vgg/data/flowers/102/
    """
    final = Path(data_dir) / "oxford-102-flowers"
    work = final.with_name(f".{final.name}.partial")
    if (final / "dataset").is_dir():
        say(f"{final} is already complete: nothing to do")
        shutil.rmtree(work, ignore_errors=True)  # left if the last call died while clearing up
        return final
    if final.exists() and any(final.iterdir()):
        raise DownloadError(f"{final} exists but holds no dataset folder: move it away, run again")
    work.mkdir(parents=True, exist_ok=True)
    with _alone_in(work), disk_full_in_one_line(work):
        files = {
            name: fetch(
                f"{base_url.rstrip('/')}/{name}", work / name, checksums[name], retries, backoff
            )
            for name in OXFORD_MD5
        }
        unpacked, arranged = work / "unpacked", work / "arranged"
        for leftover in (unpacked, arranged):
            shutil.rmtree(leftover, ignore_errors=True)
        extract(files["102flowers.tgz"], unpacked)
        counts = arrange(unpacked / "jpg", files["imagelabels.mat"], files["setid.mat"], arranged)
        arranged.rename(final)
        shutil.rmtree(work, ignore_errors=True)
    say(f"{final} is complete: " + ", ".join(f"{n} {split}" for split, n in counts.items()))
    return final


def extract(archive, folder):
    """Unpack a tar archive into a new folder; all of it or nothing, and nothing outside.

    Arguments:
        archive: a tar file, compressed or not, of plain files and folders.
        folder: where to; must not exist yet, and does not when this fails.

    Raises DownloadError: a member that is a link or a device or that points outside (before
    anything is written), a damaged archive, too little disk, a Python without extraction filters.
    Source: PEP 706.
    """
    archive, folder = Path(archive), Path(folder)
    if not hasattr(tarfile, "data_filter"):
        raise DownloadError(
            f"Python {sys.version.split()[0]} cannot unpack {archive.name} safely: "
            "tarfile's data filter is needed, in 3.11.4 or 3.12 and later"
        )
    folder.mkdir(parents=True)
    try:
        with disk_full_in_one_line(folder.parent), tarfile.open(archive) as tar:
            members = tar.getmembers()
            for member in members:
                _refuse_unsafe(member, archive)
            room = sum(-(-member.size // BLOCK) * BLOCK for member in members)
            check_disk(folder, room, f"unpacking {archive.name}")
            with progress(f"unpacking {archive.name}", len(members), 0, "files") as bar:
                for member in members:
                    tar.extract(member, folder, filter="data")
                    bar.update(1)
    except BaseException as error:  # Ctrl-C too
        shutil.rmtree(folder, ignore_errors=True)
        if isinstance(error, (tarfile.TarError, EOFError, zlib.error)):
            raise DownloadError(
                f"{archive} is no sound archive ({error}): delete it, run again"
            ) from error
        raise


def _refuse_unsafe(member, archive):
    """Let plain files and folders with inward names pass: flowers need no link and no device."""
    name = PurePosixPath(member.name)
    if name.is_absolute() or ".." in name.parts or not (member.isreg() or member.isdir()):
        raise DownloadError(
            f"{archive} holds {member.name!r}, a link, a device or a name that points outside: "
            "nothing was unpacked; delete the archive and fetch it from a source you trust"
        )


def arrange(images, labels, splits, folder):
    """Move images into `folder/dataset/<split>/<class>/`, the layout of Kaggle's data set.

    Arguments:
        images: folder of `image_00001.jpg`, ..., emptied by this.
        labels: imagelabels.mat: `labels`, the class of each image, from 1 to 102.
        splits: setid.mat: `trnid`, `valid`, `tstid`, the image numbers of each split, from 1.
        folder: where to; `cat_to_name.json` is put beside `dataset`.

    Returns the number of images in each split.
    Raises DownloadError: unreadable .mat, numbers out of range or in two splits, a missing image.
    """
    images, folder = Path(images), Path(folder)
    classes = _read_mat(labels, ["labels"])["labels"]
    numbers = _read_mat(splits, SPLIT_KEYS.values())
    every = [number for key in numbers for number in numbers[key]]
    if set(every) - set(range(1, len(classes) + 1)) or len(set(every)) < len(every):
        raise DownloadError(
            f"{splits} names an image twice, or one beyond the {len(classes)} labels"
        )
    if set(classes) - set(range(1, CLASSES + 1)):
        raise DownloadError(f"{labels} holds classes outside 1 to {CLASSES}: fetch it again")
    for split, key in SPLIT_KEYS.items():
        for number in numbers[key]:
            source = images / f"image_{number:05d}.jpg"
            target = folder / "dataset" / split / str(classes[number - 1])
            target.mkdir(parents=True, exist_ok=True)
            try:
                source.rename(target / source.name)
            except FileNotFoundError as error:
                raise DownloadError(f"{source} is missing, but {splits} names it") from error
    shutil.copyfile(Path(__file__).with_name("cat_to_name.json"), folder / "cat_to_name.json")
    return {split: len(numbers[key]) for split, key in SPLIT_KEYS.items()}


def _read_mat(path, keys):
    """The named vectors of a .mat file, as lists of int."""
    try:
        content = loadmat(path)
        return {key: [int(number) for number in content[key].ravel()] for key in keys}
    except Exception as error:  # scipy raises many kinds
        raise DownloadError(
            f"{path} lacks what it should hold ({error}): delete it, run again"
        ) from error


def read_checksums(path):
    """Read `{name: md5}` from lines of md5sum's form, `<md5>  <name>`; DownloadError if others."""
    lines = [line.split() for line in Path(path).read_text().splitlines() if line.strip()]
    if any(len(line) != 2 for line in lines) or {name for _, name in lines} != set(OXFORD_MD5):
        raise DownloadError(f"{path} must hold a line '<md5>  <name>' for each of {[*OXFORD_MD5]}")
    return {name: md5 for md5, name in lines}


@contextlib.contextmanager
def _alone_in(folder):
    """Hold the folder's lock, which the system lets go even if this process is killed."""
    with (folder / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise DownloadError(f"another download is at work in {folder}: wait for it") from error
        yield
