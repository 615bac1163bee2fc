"""Downloads from a real HTTP server on localhost that drops, lies and refuses."""

import contextlib
import hashlib
import http.server
import io
import os
import re
import shutil
import subprocess
import tarfile
import threading

import numpy as np
import pytest
from PIL import Image
from scipy.io import savemat

from diffusion.data import download, http
from diffusion.data.http import DownloadError

ARCHIVE = "102flowers.tgz"
COUNT = 24


class Mirror(http.server.ThreadingHTTPServer):
    """A web server for `files`; the other attributes are what can go wrong with one."""

    daemon_threads = True

    def __init__(self, files):
        super().__init__(("127.0.0.1", 0), MirrorHandler)
        self.files = dict(files)
        self.etag = '"1"'
        self.knows_ranges = True
        self.tells_length = True
        self.headers = {}
        self.answers = []  # status codes for the next requests, before it behaves
        self.cuts = []  # for the next requests for the archive: bytes to send before hanging up
        self.hold = None  # an event to wait for instead of hanging up
        self.log = []  # dictionaries: name, range, status, sent
        threading.Thread(target=self.serve_forever, args=(0.01,), daemon=True).start()

    def handle_error(self, request, address):
        """A client that was killed is part of the game."""

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_port}/"

    def asked_for(self, name=ARCHIVE):
        return [entry for entry in self.log if entry["name"] == name]


class MirrorHandler(http.server.BaseHTTPRequestHandler):
    def log_message(self, *arguments):
        pass

    def do_GET(self):
        server, name = self.server, self.path.strip("/")
        asked = self.headers.get("Range")
        entry = {"name": name, "range": asked, "if_range": self.headers.get("If-Range"), "sent": 0}
        server.log.append(entry)
        body = server.files.get(name)
        start = int(re.fullmatch(r"bytes=(\d+)-", asked).group(1)) if asked else 0
        status = 206 if asked else 200
        if asked and (not server.knows_ranges or entry["if_range"] not in (None, server.etag)):
            status, start = 200, 0
        if body is None:
            status = 404
        elif status == 206 and start >= len(body):
            status = 416
        if server.answers:
            status = server.answers.pop(0)
        entry["status"] = status
        self.send_response(status)
        if status >= 400:
            return self.end_headers()
        if server.tells_length:
            self.send_header("Content-Length", str(len(body) - start))
        if status == 206:
            self.send_header("Content-Range", f"bytes {start}-{len(body) - 1}/{len(body)}")
        for key, value in {"ETag": server.etag, **server.headers}.items():
            if value is not None:
                self.send_header(key, value)
        self.end_headers()
        cut = server.cuts.pop(0) if name == ARCHIVE and server.cuts else None
        piece = body[start:] if cut is None else body[start : start + cut]
        self.wfile.write(piece)
        entry["sent"] = len(piece)
        if cut is not None and server.hold is not None:
            server.hold.wait(20)


def mat_bytes(**vectors):
    buffer = io.BytesIO()
    savemat(buffer, {key: np.array([vector], np.uint8) for key, vector in vectors.items()})
    return buffer.getvalue()


def make_flowers():
    """The three files as Oxford serves them, small: noise for flowers, classes 1, 2 and 102."""
    rng, buffer = np.random.default_rng(0), io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        for number in range(1, COUNT + 1):
            image = io.BytesIO()
            noise = rng.integers(0, 256, (96, 96, 3), np.uint8)
            Image.fromarray(noise).save(image, "JPEG", quality=95)
            member = tarfile.TarInfo(f"jpg/image_{number:05d}.jpg")
            member.size = image.tell()
            tar.addfile(member, io.BytesIO(image.getvalue()))
    labels = [(1, 2, 102)[number % 3] for number in range(1, COUNT + 1)]
    splits = {"trnid": [*range(1, 11)], "valid": [*range(11, 15)], "tstid": [*range(15, COUNT + 1)]}
    return {
        "imagelabels.mat": mat_bytes(labels=labels),
        "setid.mat": mat_bytes(**splits),
        ARCHIVE: buffer.getvalue(),
    }


def md5_of_bytes(content):
    return hashlib.md5(content).hexdigest()


FLOWERS = make_flowers()
SUMS = {name: md5_of_bytes(content) for name, content in FLOWERS.items()}
SIZE = len(FLOWERS[ARCHIVE])
HALF = SIZE // 2


@pytest.fixture
def mirror():
    server = Mirror(FLOWERS)
    yield server
    if server.hold is not None:
        server.hold.set()
    server.shutdown()
    server.server_close()


def get(mirror, data_dir, retries=2):
    return download.download_oxford(data_dir, mirror.url, SUMS, retries, backoff=0.01)


def assert_complete(data_dir):
    """All that should be there is, with its bytes, and nothing else."""
    final = data_dir / "oxford-102-flowers"
    assert [path.name for path in data_dir.iterdir()] == [final.name]
    assert sorted(path.name for path in final.iterdir()) == ["cat_to_name.json", "dataset"]
    found = {path.relative_to(final / "dataset").as_posix() for path in final.rglob("*.jpg")}
    split = {n: "train" if n < 11 else "valid" if n < 15 else "test" for n in range(1, COUNT + 1)}
    assert found == {
        f"{split[n]}/{(1, 2, 102)[n % 3]}/image_{n:05d}.jpg" for n in range(1, COUNT + 1)
    }
    with tarfile.open(fileobj=io.BytesIO(FLOWERS[ARCHIVE])) as tar:
        for path in final.rglob("*.jpg"):
            assert path.read_bytes() == tar.extractfile(f"jpg/{path.name}").read()


def assert_nothing_looks_finished(data_dir):
    assert not (data_dir / "oxford-102-flowers").exists()


def archive_part(data_dir):
    return data_dir / ".oxford-102-flowers.partial" / f"{ARCHIVE}.part"


def test_flowers_arrive_in_the_layout_of_kaggle(mirror, tmp_path):
    final = get(mirror, tmp_path / "new" / "data")
    assert final == tmp_path / "new" / "data" / "oxford-102-flowers"
    assert_complete(tmp_path / "new" / "data")


def test_second_call_says_so_and_asks_for_nothing(mirror, tmp_path, capsys):
    get(mirror, tmp_path)
    asked = len(mirror.log)
    get(mirror, tmp_path)
    assert len(mirror.log) == asked
    assert "already complete" in capsys.readouterr().err


def test_dropped_download_goes_on_without_fetching_a_byte_twice(mirror, tmp_path):
    mirror.cuts = [HALF, 1000]
    get(mirror, tmp_path)
    first, second, third = mirror.asked_for()
    assert first["range"] is None
    assert (second["range"], second["status"]) == (f"bytes={HALF}-", 206)
    assert third["range"] == f"bytes={HALF + 1000}-"
    assert second["if_range"] == '"1"'
    assert sum(entry["sent"] for entry in mirror.asked_for()) == SIZE
    assert_complete(tmp_path)


def test_next_call_resumes_what_this_one_gave_up(mirror, tmp_path):
    mirror.cuts = [HALF]
    with pytest.raises(DownloadError, match=r"run again to resume"):
        get(mirror, tmp_path, retries=0)
    assert_nothing_looks_finished(tmp_path)
    assert archive_part(tmp_path).read_bytes() == FLOWERS[ARCHIVE][:HALF]
    get(mirror, tmp_path, retries=0)
    assert sum(entry["sent"] for entry in mirror.asked_for()) == SIZE
    assert_complete(tmp_path)


def test_progress_renews_the_retries(mirror, tmp_path):
    mirror.cuts = [SIZE // 10] * 8
    get(mirror, tmp_path, retries=1)
    assert_complete(tmp_path)


def test_server_that_ignores_ranges_is_read_from_the_start(mirror, tmp_path):
    mirror.knows_ranges, mirror.cuts = False, [HALF]
    get(mirror, tmp_path)
    assert [entry["status"] for entry in mirror.asked_for()] == [200, 200]
    assert_complete(tmp_path)


def test_file_that_changed_since_is_read_from_the_start(mirror, tmp_path):
    part = archive_part(tmp_path)
    part.parent.mkdir(parents=True)
    part.write_bytes(b"x" * HALF)
    part.with_suffix(".tag").write_text('"0"')
    get(mirror, tmp_path, retries=0)
    (entry,) = mirror.asked_for()
    assert (entry["range"], entry["if_range"], entry["status"]) == (f"bytes={HALF}-", '"0"', 200)
    assert_complete(tmp_path)


def test_weak_etag_is_not_used_to_resume(mirror, tmp_path):
    mirror.headers, mirror.cuts = {"ETag": 'W/"1"'}, [HALF]
    get(mirror, tmp_path)
    assert mirror.asked_for()[1]["if_range"] is None
    assert_complete(tmp_path)


def test_complete_part_needs_no_request(mirror, tmp_path):
    part = archive_part(tmp_path)
    part.parent.mkdir(parents=True)
    part.write_bytes(FLOWERS[ARCHIVE])
    get(mirror, tmp_path)
    assert mirror.asked_for() == []
    assert_complete(tmp_path)


def test_part_longer_than_the_file_is_dropped(mirror, tmp_path):
    part = archive_part(tmp_path)
    part.parent.mkdir(parents=True)
    part.write_bytes(b"x" * (SIZE + 1))
    get(mirror, tmp_path)
    assert [entry["status"] for entry in mirror.asked_for()] == [416, 200]
    assert_complete(tmp_path)


def test_archive_labelled_as_encoded_is_kept_as_it_is(mirror, tmp_path):
    mirror.headers = {"Content-Encoding": "x-gzip"}
    path = http.fetch(mirror.url + ARCHIVE, tmp_path / ARCHIVE, SUMS[ARCHIVE], retries=0)
    assert path.read_bytes() == FLOWERS[ARCHIVE]


def test_busy_server_is_asked_again(mirror, tmp_path):
    mirror.answers = [503, 429]
    get(mirror, tmp_path)
    assert_complete(tmp_path)


def test_wrong_checksum_names_both_sums_and_leaves_nothing(mirror, tmp_path):
    mirror.files[ARCHIVE] = b"<html>please log in</html>"
    wrong = md5_of_bytes(mirror.files[ARCHIVE])
    with pytest.raises(DownloadError, match=f"{wrong}.*{SUMS[ARCHIVE]}"):
        get(mirror, tmp_path)
    assert_nothing_looks_finished(tmp_path)
    assert not [path for path in tmp_path.rglob("*") if path.name.startswith(ARCHIVE)]
    mirror.files[ARCHIVE] = FLOWERS[ARCHIVE]
    get(mirror, tmp_path)
    assert_complete(tmp_path)


def test_missing_file_is_not_asked_for_again(mirror, tmp_path):
    del mirror.files["setid.mat"]
    with pytest.raises(DownloadError, match=r"setid\.mat answered 404 Not Found.*--base-url"):
        get(mirror, tmp_path)
    assert len(mirror.asked_for("setid.mat")) == 1
    assert_nothing_looks_finished(tmp_path)


def test_refused_connection_is_one_line(tmp_path):
    with pytest.raises(DownloadError, match=r"Connection refused.*run again") as caught:
        download.download_oxford(tmp_path, "http://127.0.0.1:9/", SUMS, 1, 0.01)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("address", ["flowers", "file:///etc", "http://"])
def test_no_address_is_one_line(address, tmp_path):
    with pytest.raises(DownloadError, match="is no web address"):
        download.download_oxford(tmp_path, address, SUMS, 5, 1)


def test_interrupted_unpacking_starts_over_without_fetching(mirror, tmp_path, monkeypatch):
    def interrupt(*arguments, **options):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(tarfile.TarFile, "extract", interrupt)
        with pytest.raises(KeyboardInterrupt):
            get(mirror, tmp_path)
    assert_nothing_looks_finished(tmp_path)
    asked = len(mirror.log)
    for leftover in ("unpacked/jpg", "arranged/dataset/train/1"):  # what SIGKILL would leave
        folder = tmp_path / ".oxford-102-flowers.partial" / leftover
        folder.mkdir(parents=True)
        (folder / "image_99999.jpg").write_bytes(b"half a flow")
    get(mirror, tmp_path)
    assert len(mirror.log) == asked
    assert_complete(tmp_path)


def test_interrupted_arranging_is_not_taken_for_finished(mirror, tmp_path, monkeypatch):
    def interrupt(*arguments):
        assert_nothing_looks_finished(tmp_path)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(shutil, "copyfile", interrupt)  # the last step, all images are in place
        with pytest.raises(KeyboardInterrupt):
            get(mirror, tmp_path)
    assert_nothing_looks_finished(tmp_path)
    asked = len(mirror.log)
    get(mirror, tmp_path)
    assert len(mirror.log) == asked
    assert_complete(tmp_path)


def test_folder_of_another_kind_is_not_overwritten(mirror, tmp_path):
    (tmp_path / "oxford-102-flowers").mkdir()
    (tmp_path / "oxford-102-flowers" / "mine.txt").write_text("mine")
    with pytest.raises(DownloadError, match="holds no dataset folder"):
        get(mirror, tmp_path)
    assert (tmp_path / "oxford-102-flowers" / "mine.txt").read_text() == "mine"
    assert mirror.log == []


def test_two_downloads_do_not_write_into_one_file(mirror, tmp_path):
    mirror.cuts, mirror.hold = [HALF], threading.Event()
    first = threading.Thread(target=get, args=(mirror, tmp_path))
    first.start()
    while not mirror.asked_for():
        first.join(0.01)
    with pytest.raises(DownloadError, match="another download is at work"):
        get(mirror, tmp_path)
    mirror.hold.set()
    first.join()
    assert_complete(tmp_path)


# --- archives that mean harm ---------------------------------------------------------------------


def member(name, kind=tarfile.REGTYPE, link=""):
    info = tarfile.TarInfo(name)
    info.type, info.linkname, info.size = kind, link, 4 if kind == tarfile.REGTYPE else 0
    return info


HOSTILE = {
    "parent": [member("../escaped.txt")],
    "parent further in": [member("jpg/../../escaped.txt")],
    "absolute": [member("{outside}/escaped.txt")],
    "file through a symlink": [member("door", tarfile.SYMTYPE, "{outside}"), member("door/a.txt")],
    "symlink to a parent": [member("door", tarfile.SYMTYPE, ".."), member("door/escaped.txt")],
    "hard link": [member("door", tarfile.LNKTYPE, "{outside}/secret.txt"), member("door")],
    "device": [member("null", tarfile.CHRTYPE)],
    "pipe": [member("pipe", tarfile.FIFOTYPE)],
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_hostile_archive_writes_nothing_at_all(kind, tmp_path):
    outside, inside = tmp_path / "outside", tmp_path / "inside"
    outside.mkdir()
    inside.mkdir()
    (outside / "secret.txt").write_text("safe")
    with tarfile.open(inside / "bad.tgz", "w:gz") as tar:
        tar.addfile(member("jpg/good.jpg"), io.BytesIO(b"good"))
        for info in HOSTILE[kind]:
            info = info.replace(
                name=info.name.format(outside=outside),
                linkname=info.linkname.format(outside=outside),
            )
            tar.addfile(info, io.BytesIO(b"evil"))
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(DownloadError, match=r"bad\.tgz holds .* nothing was unpacked"):
        download.extract(inside / "bad.tgz", inside / "unpacked")
    assert sorted(tmp_path.rglob("*")) == before
    assert (outside / "secret.txt").read_text() == "safe"


@pytest.mark.parametrize("damage", ["cut", "noise", "empty"])
def test_damaged_archive_is_named_and_leaves_nothing(damage, tmp_path):
    whole = FLOWERS[ARCHIVE]
    content = {
        "cut": whole[:HALF],
        "noise": b"noise" * 200,
        "empty": b"",
    }[damage]
    (tmp_path / "bad.tgz").write_bytes(content)
    with pytest.raises(DownloadError, match=r"bad\.tgz is no sound archive"):
        download.extract(tmp_path / "bad.tgz", tmp_path / "unpacked")
    assert [path.name for path in tmp_path.iterdir()] == ["bad.tgz"]


def test_python_without_filters_is_told_what_is_needed(tmp_path, monkeypatch):
    (tmp_path / ARCHIVE).write_bytes(FLOWERS[ARCHIVE])
    monkeypatch.delattr(tarfile, "data_filter")
    with pytest.raises(DownloadError, match=r"3\.11\.4"):
        download.extract(tmp_path / ARCHIVE, tmp_path / "unpacked")


# --- arranging -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("labels", "trnid", "message"),
    [
        ([1, 2, 103], [1], "classes outside 1 to 102"),
        ([1, 2, 3], [4], "beyond the 3 labels"),
        ([1, 2, 3], [0], "beyond the 3 labels"),
        ([1, 2, 3], [2], "names an image twice"),
        ([1, 2, 3], [1], "image_00001.jpg is missing"),
    ],
)
def test_labels_that_do_not_fit_are_refused(labels, trnid, message, tmp_path):
    (tmp_path / "labels.mat").write_bytes(mat_bytes(labels=labels))
    (tmp_path / "setid.mat").write_bytes(mat_bytes(trnid=trnid, valid=[2], tstid=[3]))
    with pytest.raises(DownloadError, match=message):
        download.arrange(tmp_path, tmp_path / "labels.mat", tmp_path / "setid.mat", tmp_path / "to")


@pytest.mark.parametrize("content", [b"not matlab", b"", mat_bytes(other=[1])])
def test_unreadable_labels_are_refused(content, tmp_path):
    (tmp_path / "labels.mat").write_bytes(content)
    with pytest.raises(DownloadError, match=r"labels\.mat lacks what it should hold"):
        download.arrange(tmp_path, tmp_path / "labels.mat", tmp_path / "s.mat", tmp_path / "to")


# --- disk nearly full ----------------------------------------------------------------------------


def say_free(monkeypatch, size):
    usage = shutil.disk_usage("/")._replace(free=size)
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: usage)


def test_too_little_disk_is_seen_before_the_download(mirror, tmp_path, monkeypatch):
    say_free(monkeypatch, SIZE - 1)
    with pytest.raises(DownloadError, match=rf"{ARCHIVE} needs .* MB under .*, .* MB are free"):
        get(mirror, tmp_path)
    assert_nothing_looks_finished(tmp_path)
    assert not archive_part(tmp_path).exists()


def test_resuming_needs_room_for_the_rest_alone(mirror, tmp_path, monkeypatch):
    part = archive_part(tmp_path)
    part.parent.mkdir(parents=True)
    part.write_bytes(FLOWERS[ARCHIVE][:-1000])
    say_free(monkeypatch, 1000)
    path = http.fetch(mirror.url + ARCHIVE, part.with_suffix(""), SUMS[ARCHIVE])
    assert path.read_bytes() == FLOWERS[ARCHIVE]


def test_starting_over_counts_the_room_of_the_old_part(mirror, tmp_path, monkeypatch):
    mirror.knows_ranges = False
    (tmp_path / "a.part").write_bytes(FLOWERS[ARCHIVE][:HALF])
    say_free(monkeypatch, SIZE - HALF)
    path = http.fetch(mirror.url + ARCHIVE, tmp_path / "a", SUMS[ARCHIVE])
    assert path.read_bytes() == FLOWERS[ARCHIVE]


def test_too_little_disk_is_seen_before_unpacking(mirror, tmp_path, monkeypatch):
    say_free(monkeypatch, SIZE)  # enough for the archive, not for blocks of 4096
    with pytest.raises(DownloadError, match=rf"unpacking {ARCHIVE} needs .* MB are free"):
        get(mirror, tmp_path)
    assert_nothing_looks_finished(tmp_path)
    asked = len(mirror.log)
    monkeypatch.undo()
    get(mirror, tmp_path)
    assert len(mirror.log) == asked
    assert_complete(tmp_path)


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full")
def test_disk_that_fills_up_is_one_line(mirror, tmp_path, monkeypatch):
    monkeypatch.setattr(http, "md5_of", lambda path: "none")  # /dev/full has no end
    (tmp_path / "a.part").symlink_to("/dev/full")
    with pytest.raises(DownloadError, match=r"is full .* run again to resume"):
        http.fetch(mirror.url + ARCHIVE, tmp_path / "a", SUMS[ARCHIVE])
    assert not (tmp_path / "a").exists()


@contextlib.contextmanager
def small_disk(folder, size):
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)]
    if shutil.which("mount") is None or subprocess.run(command, capture_output=True).returncode:
        pytest.skip("a small disk needs the right to mount a tmpfs")
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def grow(disk, size):
    subprocess.run(["mount", "-o", f"remount,size={size}", str(disk)], check=True)


def test_small_disk_full_in_the_download_keeps_the_part(mirror, tmp_path):
    mirror.tells_length = False  # so that the look at the free disk cannot help
    with small_disk(tmp_path / "disk", HALF) as disk:
        with pytest.raises(DownloadError, match=r"is full"):
            get(mirror, disk)
        assert_nothing_looks_finished(disk)
        kept = archive_part(disk).stat().st_size
        assert 0 < kept < SIZE
        grow(disk, 4 * SIZE)
        get(mirror, disk)
        assert mirror.asked_for()[1]["range"] == f"bytes={kept}-"
        assert_complete(disk)


def test_small_disk_full_in_the_unpacking_keeps_the_archive(mirror, tmp_path, monkeypatch):
    say_free(monkeypatch, 10**9)
    with small_disk(tmp_path / "disk", SIZE + HALF) as disk:
        with pytest.raises(DownloadError, match=r"is full"):
            get(mirror, disk)
        assert_nothing_looks_finished(disk)
        assert not list(disk.rglob("*.jpg"))
        asked = len(mirror.log)
        grow(disk, 4 * SIZE)
        get(mirror, disk)
        assert len(mirror.log) == asked
        assert_complete(disk)
