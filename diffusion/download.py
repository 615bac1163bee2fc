"""Fetch, resume, verify, unpack safely: the keyless way to the Oxford 102 flowers.

All work happens in one hidden folder beside the final one; the final folder appears by a single
rename when everything in it is complete. A call that was stopped, at any moment and by anything,
goes on from the bytes it has. (pooch verifies and unpacks too, but it cannot resume a download.)
"""

import contextlib
import errno
import fcntl
import hashlib
import shutil
import sys
import tarfile
import time
import zlib
from pathlib import Path, PurePosixPath

import requests
import urllib3
from scipy.io import loadmat
from tqdm import tqdm

OXFORD_URL = "https://www.robots.ox.ac.uk/~vgg/data/flowers/102/"
OXFORD_MD5 = {
    "imagelabels.mat": "e0620be6f572b9609742df49c70aed4d",
    "setid.mat": "a5357ecc9cb78c4bef273ce3793fc85c",
    "102flowers.tgz": "52808999861908f626f3c1f4e79d11fa",
}
SPLITS = {"train": "trnid", "valid": "valid", "test": "tstid"}  # our folder: key in setid.mat
CLASSES = 102
CHUNK = 1 << 16
TIMEOUT = (10, 60)  # seconds to connect, seconds without a byte
BLOCK = 4096  # a small file takes a whole block of the disk


class DownloadError(RuntimeError):
    """What went wrong, with which file, and what to do about it, in one line."""


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
        _say(f"{final} is already complete: nothing to do")
        shutil.rmtree(work, ignore_errors=True)  # left if the last call died while clearing up
        return final
    if final.exists() and any(final.iterdir()):
        raise DownloadError(f"{final} exists but holds no dataset folder: move it away, run again")
    work.mkdir(parents=True, exist_ok=True)
    with _alone_in(work), _disk_full_in_one_line(work):
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
    _say(f"{final} is complete: " + ", ".join(f"{n} {split}" for split, n in counts.items()))
    return final


def fetch(url, path, md5, retries=5, backoff=1.0):
    """Download one file, going on from `<path>.part` where an earlier call stopped.

    Arguments:
        url: where it lies.
        path: where it goes; the name appears only once the checksum agrees.
        md5: its checksum, in hexadecimal.
        retries: how many failures in a row are forgiven; any byte received starts a new row.
        backoff: seconds before the first new try, doubled at each (at most 60).

    Returns `path`. A file there that agrees with `md5` is not fetched again.
    Raises DownloadError: refused, not found, network lost, disk full, wrong checksum.
    Source: RFC 9110, sections 13.1.5 (If-Range) and 14 (Range).
    """
    path = Path(path)
    part = path.with_name(path.name + ".part")
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.exists() and md5_of(path) == md5:
        return path
    if not (part.exists() and md5_of(part) == md5):  # it does where a call died before the rename
        _receive_patiently(url, part, retries, backoff)
    found = md5_of(part)
    part.with_suffix(".tag").unlink(missing_ok=True)
    if found != md5:
        part.unlink()
        raise DownloadError(
            f"{url} has MD5 {found}, not {md5}: removed; run again, or pass another --base-url"
        )
    return part.replace(path)


def _receive_patiently(url, part, retries, backoff):
    """Call `_receive` until `part` has all its bytes, or nothing comes any more."""
    failures = 0
    while True:
        before = _size(part)
        try:
            with _disk_full_in_one_line(part.parent):
                return _receive(url, part)
        except ValueError as error:  # what requests raises for an address that is none
            raise DownloadError(f"{url} is no web address: pass --base-url https://...") from error
        except (requests.RequestException, urllib3.exceptions.HTTPError) as error:
            failures = 1 if _size(part) > before else failures + 1
            if failures > retries:
                raise DownloadError(
                    f"cannot fetch {url} ({_root_cause(error)}): {_mb(_size(part))} are kept; "
                    "check the network or --base-url, then run again to resume"
                ) from error
            pause = min(backoff * 2 ** (failures - 1), 60)
            _say(f"{part.stem}: {_root_cause(error)}; trying again in {pause:g} s")
            time.sleep(pause)


def _receive(url, part):
    """Make one request for the bytes that `part` lacks, and append them.

    If-Range carries what names the version that the part was cut from: had the file changed since,
    the server would send all of the new one (200) instead of a tail that does not fit (206).
    """
    have, tag = _size(part), part.with_suffix(".tag")
    headers = {"Accept-Encoding": "identity"}
    if have:
        headers["Range"] = f"bytes={have}-"
        if _size(tag):
            headers["If-Range"] = tag.read_text()
    with requests.get(url, headers=headers, stream=True, timeout=TIMEOUT) as response:
        resumed = response.status_code == 206
        fits = response.headers.get("Content-Range", "").startswith(f"bytes {have}-")
        if response.status_code == 416 or (resumed and not fits):
            part.unlink()
            raise requests.ConnectionError("the part does not fit the file and was dropped")
        _refuse_error(response, url)
        length = int(response.headers.get("Content-Length", 0)) or None
        _check_disk(part.parent, (length or 0) - (0 if resumed else have), f"downloading {url}")
        with part.open("ab" if resumed else "wb") as file:
            tag.write_text(_version(response.headers))
            start = have if resumed else 0
            with _progress(part.stem, length and start + length, start, "B") as bar:
                # Undecoded: some servers call a .tgz "Content-Encoding: gzip", and would have
                # requests unpack it on the way.
                for chunk in response.raw.stream(CHUNK, decode_content=False):
                    file.write(chunk)
                    bar.update(len(chunk))


def _refuse_error(response, url):
    """Raise HTTPError where another try may help, DownloadError where it cannot."""
    code, answer = response.status_code, f"{response.status_code} {response.reason}"
    if code in (408, 425, 429) or code >= 500:
        raise requests.HTTPError(f"the server answered {answer}")
    if code >= 400:
        raise DownloadError(f"{url} answered {answer}: check the address, or pass --base-url")


def _version(headers):
    """What If-Range may hold: a strong ETag, else the date, else nothing."""
    etag = headers.get("ETag", "")
    return etag if etag.startswith('"') else headers.get("Last-Modified", "")


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
        with _disk_full_in_one_line(folder.parent), tarfile.open(archive) as tar:
            members = tar.getmembers()
            for member in members:
                _refuse_unsafe(member, archive)
            room = sum(-(-member.size // BLOCK) * BLOCK for member in members)
            _check_disk(folder, room, f"unpacking {archive.name}")
            with _progress(f"unpacking {archive.name}", len(members), 0, "files") as bar:
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
    numbers = _read_mat(splits, SPLITS.values())
    every = [number for key in numbers for number in numbers[key]]
    if set(every) - set(range(1, len(classes) + 1)) or len(set(every)) < len(every):
        raise DownloadError(
            f"{splits} names an image twice, or one beyond the {len(classes)} labels"
        )
    if set(classes) - set(range(1, CLASSES + 1)):
        raise DownloadError(f"{labels} holds classes outside 1 to {CLASSES}: fetch it again")
    for split, key in SPLITS.items():
        for number in numbers[key]:
            source = images / f"image_{number:05d}.jpg"
            target = folder / "dataset" / split / str(classes[number - 1])
            target.mkdir(parents=True, exist_ok=True)
            try:
                source.rename(target / source.name)
            except FileNotFoundError as error:
                raise DownloadError(f"{source} is missing, but {splits} names it") from error
    shutil.copyfile(Path(__file__).with_name("cat_to_name.json"), folder / "cat_to_name.json")
    return {split: len(numbers[key]) for split, key in SPLITS.items()}


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


def md5_of(path):
    """The MD5 of a file, in hexadecimal."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()


@contextlib.contextmanager
def _alone_in(folder):
    """Hold the folder's lock, which the system lets go even if this process is killed."""
    with (folder / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise DownloadError(f"another download is at work in {folder}: wait for it") from error
        yield


def _check_disk(folder, needed, doing):
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise DownloadError(
            f"{doing} needs {_mb(needed)} under {folder}, {_mb(free)} are free: "
            "free some, or pass another --data-dir; what is finished is kept"
        )


@contextlib.contextmanager
def _disk_full_in_one_line(folder):
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        free = _mb(shutil.disk_usage(folder).free)
        raise DownloadError(
            f"the disk under {folder} is full ({free} free): free some, then run again to resume"
        ) from error


class _Lines:
    """A file for tqdm where there is no terminal: lines for a log, nothing redrawn."""

    def write(self, text):
        if text.strip():
            _say(text.strip())

    def flush(self):
        sys.stderr.flush()


def _progress(name, total, done, unit):
    manners = {}
    if not sys.stderr.isatty():
        form = "{desc}: {n_fmt} of {total_fmt} {unit}"
        manners = {"file": _Lines(), "mininterval": 10, "bar_format": form}
    return tqdm(desc=name, total=total, initial=done, unit=unit, unit_scale=True, **manners)


def _say(line):
    print(line, file=sys.stderr, flush=True)


def _mb(size):
    return f"{size / 1e6:,.1f} MB"


def _size(path):
    return path.stat().st_size if path.exists() else 0


def _root_cause(error):
    while error.__context__ is not None:
        error = error.__context__
    return str(error) or type(error).__name__
