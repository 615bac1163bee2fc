"""Download a file by HTTP: with a progress bar, resumed after a drop, verified, never half there.

requests does the HTTP and tqdm the progress bar. (pooch verifies and unpacks too, but cannot resume
a download.)
"""

import contextlib
import errno
import hashlib
import shutil
import sys
import time
from pathlib import Path

import requests
import urllib3
from tqdm import tqdm

CHUNK = 1 << 16
TIMEOUT = (10, 60)  # seconds to connect, seconds without a byte


class DownloadError(RuntimeError):
    """A download failed; the message says in one line which, why, and what to do about it."""


def fetch(url: str, path: Path | str, md5: str, retries: int = 5, backoff: float = 1.0) -> Path:
    """Download one file; what an earlier call left in `<path>.part` is resumed.

    Args:
        url: the file's address.
        path: the destination; the name appears only once the checksum agrees.
        md5: the file's checksum, in hexadecimal.
        retries: failures in a row before giving up; any byte received starts a new count.
        backoff: seconds before the first retry, doubled at each further one (at most 60).

    Returns `path`; a file there that agrees with `md5` is not downloaded again.
    Raises DownloadError: refused, not found, network lost, disk full, wrong checksum.
    Source: RFC 9110, sections 13.1.5 (If-Range) and 14 (Range).
    """
    path = Path(path)
    part = path.with_name(path.name + ".part")
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.exists() and md5_of(path) == md5:
        return path
    if not (part.exists() and md5_of(part) == md5):  # it is, if a call died just before renaming it
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
    """Call `_receive` until `part` is complete or the retries are used up."""
    failures = 0
    while True:
        before = _size(part)
        try:
            with disk_full_in_one_line(part.parent):
                return _receive(url, part)
        except ValueError as error:  # requests: a malformed address
            raise DownloadError(
                f"{url} is not a web address: pass --base-url https://..."
            ) from error
        except (requests.RequestException, urllib3.exceptions.HTTPError) as error:
            failures = 1 if _size(part) > before else failures + 1
            if failures > retries:
                raise DownloadError(
                    f"cannot download {url} ({_root_cause(error)}): {_mb(_size(part))} are kept; "
                    "check the network or --base-url, then run again to resume"
                ) from error
            pause = min(backoff * 2 ** (failures - 1), 60)
            say(f"{part.stem}: {_root_cause(error)}; retrying in {pause:g} s")
            time.sleep(pause)


def _receive(url, part):
    """Request the bytes that `part` lacks, and append them.

    If-Range names the version of the file that the part comes from: if the file has changed since,
    the server sends all of the new one (200) instead of a tail that does not fit (206).
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
        check_disk(part.parent, (length or 0) - (0 if resumed else have), f"downloading {url}")
        with part.open("ab" if resumed else "wb") as file:
            tag.write_text(_version(response.headers))
            start = have if resumed else 0
            with progress(part.stem, length and start + length, start, "B") as bar:
                # Undecoded: some servers call a .tgz "Content-Encoding: gzip", and requests
                # would unpack it on the way.
                for chunk in response.raw.stream(CHUNK, decode_content=False):
                    file.write(chunk)
                    bar.update(len(chunk))


def _refuse_error(response, url):
    """Raise HTTPError if a retry may help, DownloadError if it cannot."""
    code, answer = response.status_code, f"{response.status_code} {response.reason}"
    if code in (408, 425, 429) or code >= 500:
        raise requests.HTTPError(f"the server answered {answer}")
    if code >= 400:
        raise DownloadError(f"{url} answered {answer}: check the address, or pass --base-url")


def _version(headers):
    """Return what If-Range may hold: a strong ETag, else the date, else nothing."""
    etag = headers.get("ETag", "")
    return etag if etag.startswith('"') else headers.get("Last-Modified", "")


def md5_of(path: Path | str) -> str:
    """Return the MD5 of a file, in hexadecimal."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()


def check_disk(folder: Path, needed: int, doing: str) -> None:
    """Raise DownloadError if `folder`'s disk lacks `needed` bytes; `doing` is what for."""
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise DownloadError(
            f"{doing} needs {_mb(needed)} under {folder}, {_mb(free)} are free: "
            "free some, or pass another --data-dir; what is finished is kept"
        )


@contextlib.contextmanager
def disk_full_in_one_line(folder: Path):
    """Turn the OSError of a full disk, or a used-up quota, into a DownloadError."""
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
    """A file for tqdm without a terminal: lines for a log, nothing redrawn."""

    def write(self, text):
        if text.strip():
            say(text.strip())

    def flush(self):
        sys.stderr.flush()


def progress(name: str, total: int | None, done: int, unit: str) -> tqdm:
    """Return a progress bar, or one that prints a line every ten seconds without a terminal."""
    options = {}
    if not sys.stderr.isatty():
        form = "{desc}: {n_fmt} of {total_fmt} {unit}"
        options = {"file": _Lines(), "mininterval": 10, "bar_format": form}
    return tqdm(desc=name, total=total, initial=done, unit=unit, unit_scale=True, **options)


def say(line: str) -> None:
    """Print a line on standard error at once."""
    print(line, file=sys.stderr, flush=True)


def _mb(size):
    return f"{size / 1e6:,.1f} MB"


def _size(path):
    return path.stat().st_size if path.exists() else 0


def _root_cause(error):
    while error.__context__ is not None:
        error = error.__context__
    return str(error) or type(error).__name__
