"""The keyless way to the Oxford 102 flowers: fetch, verify, unpack safely, arrange.

All work happens in a hidden folder beside the final one; the final folder appears by a single
rename when everything in it is complete. A call that was interrupted, at any moment and by
anything, is resumed from the bytes it has.
"""

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
from diffusion.support.files import folder_lock
from diffusion.support.validation import whole_number

OXFORD_URL = "https://www.robots.ox.ac.uk/~vgg/data/flowers/102/"
OXFORD_MD5 = {
    "imagelabels.mat": "e0620be6f572b9609742df49c70aed4d",
    "setid.mat": "a5357ecc9cb78c4bef273ce3793fc85c",
    "102flowers.tgz": "52808999861908f626f3c1f4e79d11fa",
}
SPLIT_KEYS = {"train": "trnid", "valid": "valid", "test": "tstid"}  # our folder: key in setid.mat
CLASSES = 102
BLOCK = 4096  # a small file takes a whole block of the disk


def download_oxford(
    data_dir: Path | str,
    base_url: str = OXFORD_URL,
    checksums: dict[str, str] = OXFORD_MD5,
    retries: int = 5,
    backoff: float = 1.0,
) -> Path:
    """Download the Oxford 102 flowers to `<data_dir>/oxford-102-flowers`, or resume doing so.

    Args:
        data_dir: folder for data sets; created if missing.
        base_url: where the three files lie, for a mirror.
        checksums: MD5 of each of the three files, by name.
        retries, backoff: as for `fetch`.

    Returns the folder: `dataset/<train|valid|test>/<1..102>/image_NNNNN.jpg`, `cat_to_name.json`.
    Raises DownloadError, whatever is complete by then being kept for the next call, and
    FileExistsError if another process is downloading there.
    Source: Nilsback and Zisserman, 2008, https://www.robots.ox.ac.uk/~vgg/data/flowers/102/
    """
    whole_number("retries", retries, least=0)
    final = Path(data_dir) / "oxford-102-flowers"
    work = final.with_name(f".{final.name}.partial")
    if (final / "dataset").is_dir():
        say(f"{final} is already complete: nothing to do")
        shutil.rmtree(work, ignore_errors=True)  # left by a call that died while clearing up
        return final
    if final.exists() and any(final.iterdir()):
        raise DownloadError(f"{final} exists but holds no dataset folder: move it, then run again")
    with folder_lock(work, "downloading"), disk_full_in_one_line(work):
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


def extract(archive: Path | str, folder: Path | str) -> None:
    """Unpack a tar archive into a new folder: all of it or nothing, and nothing outside.

    Args:
        archive: a tar file of plain files and folders, compressed or not.
        folder: the destination; it must not exist yet, and does not exist after a failure.

    Raises DownloadError for a member that is a link or a device or points outside (before
    anything is written), a damaged archive, a full disk, or a Python without extraction filters.
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
                f"{archive} is not a sound archive ({error}): delete it, then run again"
            ) from error
        raise


def _refuse_unsafe(member, archive):
    """Accept only plain files and folders with names inside: flowers need no link, no device."""
    name = PurePosixPath(member.name)
    if name.is_absolute() or ".." in name.parts or not (member.isreg() or member.isdir()):
        raise DownloadError(
            f"{archive} holds {member.name!r}, a link, a device or a name that points outside: "
            "nothing was unpacked; delete the archive and download it from a source you trust"
        )


def arrange(
    pictures: Path | str, labels: Path | str, splits: Path | str, folder: Path | str
) -> dict[str, int]:
    """Move pictures to `folder/dataset/<split>/<class>/`, the layout of Kaggle's data set.

    Args:
        pictures: a folder of `image_00001.jpg`, ...; it is emptied.
        labels: imagelabels.mat: `labels`, the class of each picture, from 1 to 102.
        splits: setid.mat: `trnid`, `valid`, `tstid`, the picture numbers of each split, from 1.
        folder: the destination; `cat_to_name.json` is put beside `dataset`.

    Returns the number of pictures in each split. Raises DownloadError for an unreadable .mat,
    numbers out of range or in two splits, or a missing picture.
    """
    pictures, folder = Path(pictures), Path(folder)
    classes = _read_mat(labels, ["labels"])["labels"]
    numbers = _read_mat(splits, SPLIT_KEYS.values())
    every = [number for key in numbers for number in numbers[key]]
    if set(every) - set(range(1, len(classes) + 1)) or len(set(every)) < len(every):
        raise DownloadError(
            f"{splits} names a picture twice, or one beyond the {len(classes)} labels"
        )
    if set(classes) - set(range(1, CLASSES + 1)):
        raise DownloadError(f"{labels} holds classes outside 1 to {CLASSES}: fetch it again")
    for split, key in SPLIT_KEYS.items():
        for number in numbers[key]:
            source = pictures / f"image_{number:05d}.jpg"
            target = folder / "dataset" / split / str(classes[number - 1])
            target.mkdir(parents=True, exist_ok=True)
            try:
                source.rename(target / source.name)
            except FileNotFoundError as error:
                raise DownloadError(f"{source} is missing, but {splits} names it") from error
    shutil.copyfile(Path(__file__).with_name("cat_to_name.json"), folder / "cat_to_name.json")
    return {split: len(numbers[key]) for split, key in SPLIT_KEYS.items()}


def _read_mat(path, keys):
    """Return the named vectors of a .mat file as lists of int."""
    try:
        content = loadmat(path)
        return {key: [int(number) for number in content[key].ravel()] for key in keys}
    except Exception as error:  # a damaged file makes scipy raise anything
        raise DownloadError(
            f"{path} lacks {', '.join(keys)} ({error}): delete it, then run again"
        ) from error


def read_checksums(path: Path | str) -> dict[str, str]:
    """Read `{name: md5}` from lines as md5sum writes them; DownloadError for anything else."""
    try:
        lines = [line.split() for line in Path(path).read_text().splitlines() if line.strip()]
        checksums = {name: md5 for md5, name in lines}
    except ValueError:  # not text, or not two words in a line
        checksums = {}
    if set(checksums) != set(OXFORD_MD5):
        raise DownloadError(f"{path} must hold a line '<md5>  <name>' for each of {[*OXFORD_MD5]}")
    return checksums
