"""Getting the Oxford flowers: complete or not there, unpacked safely, arranged as labelled."""

import errno
import io
import shutil
import tarfile
import threading

import pytest
from mirror import (
    ARCHIVE,
    FLOWERS,
    HALF,
    SIZE,
    SUMS,
    assert_complete,
    assert_nothing_looks_finished,
    mat_bytes,
    say_free,
)
from processes import run_python

from diffusion.data import download
from diffusion.data.http import DownloadError


def get(mirror, data_dir, retries=2):
    return download.download_oxford(data_dir, mirror.url, SUMS, retries, backoff=0.01)


def test_flowers_arrive_once_in_the_layout_of_kaggle(mirror, tmp_path, capsys):
    for _ in range(2):
        final = get(mirror, tmp_path / "new" / "data")
        assert final == tmp_path / "new" / "data" / "oxford-102-flowers"
        assert_complete(tmp_path / "new" / "data")
    assert len(mirror.log) == len(FLOWERS)
    assert "already complete" in capsys.readouterr().err


FULL = OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize("error", [KeyboardInterrupt(), FULL])
@pytest.mark.parametrize(("owner", "step"), [(tarfile.TarFile, "extract"), (shutil, "copyfile")])
def test_what_was_interrupted_after_the_download_starts_over_without_it(
    mirror, tmp_path, monkeypatch, owner, step, error
):
    def interrupt(*arguments, **options):
        assert_nothing_looks_finished(tmp_path)
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(owner, step, interrupt)
        with pytest.raises(DownloadError if error is FULL else KeyboardInterrupt) as caught:
            get(mirror, tmp_path)
    assert error is not FULL or str(tmp_path) in str(caught.value)
    assert_nothing_looks_finished(tmp_path)
    requests = len(mirror.log)
    for leftover in ("unpacked/jpg", "arranged/dataset/train/1"):  # what SIGKILL would leave
        folder = tmp_path / ".oxford-102-flowers.partial" / leftover
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "image_99999.jpg").write_bytes(b"half a flow")
    get(mirror, tmp_path)
    assert len(mirror.log) == requests
    assert_complete(tmp_path)


def test_a_folder_of_another_kind_is_not_overwritten(mirror, tmp_path):
    (tmp_path / "oxford-102-flowers").mkdir()
    (tmp_path / "oxford-102-flowers" / "mine.txt").write_text("mine")
    with pytest.raises(DownloadError, match="oxford-102-flowers"):
        get(mirror, tmp_path)
    assert (tmp_path / "oxford-102-flowers" / "mine.txt").read_text() == "mine"
    assert mirror.log == []


def test_two_downloads_do_not_write_to_one_file(mirror, tmp_path):
    mirror.cuts, mirror.hold = [HALF], threading.Event()
    first = threading.Thread(target=get, args=(mirror, tmp_path))
    first.start()
    while not mirror.requests():
        first.join(0.01)
    with pytest.raises(FileExistsError, match="downloading"):
        get(mirror, tmp_path)
    mirror.hold.set()
    first.join()
    assert_complete(tmp_path)


@pytest.mark.slow
def test_a_system_without_flock_downloads_too(mirror, tmp_path):
    program = f"""
import sys
sys.modules["fcntl"] = None
from diffusion.data import download_oxford
download_oxford(sys.argv[1], sys.argv[2], {SUMS!r})
"""
    run_python(program, tmp_path, mirror.url)
    assert_complete(tmp_path)


@pytest.mark.parametrize(
    "content", [b"abc  other.tgz\n", b"abc 102flowers.tgz more\n", b"", b"\xff\xfe\x00", b"abc\n"]
)
def test_a_list_of_checksums_that_is_none_is_refused_by_name(tmp_path, content):
    (tmp_path / "sums.txt").write_bytes(content)
    with pytest.raises(DownloadError, match="sums"):
        download.read_checksums(tmp_path / "sums.txt")


# --- unpacking ---


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
def test_a_hostile_archive_writes_nothing_at_all(kind, tmp_path):
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
    with pytest.raises(DownloadError, match=r"bad\.tgz .* nothing was unpacked"):
        download.extract(inside / "bad.tgz", inside / "unpacked")
    assert sorted(tmp_path.rglob("*")) == before
    assert (outside / "secret.txt").read_text() == "safe"


@pytest.mark.parametrize("content", [FLOWERS[ARCHIVE][:HALF], b"noise" * 200, b""])
def test_a_damaged_archive_is_named_and_leaves_nothing(content, tmp_path):
    (tmp_path / "bad.tgz").write_bytes(content)
    with pytest.raises(DownloadError, match=r"bad\.tgz"):
        download.extract(tmp_path / "bad.tgz", tmp_path / "unpacked")
    assert [path.name for path in tmp_path.iterdir()] == ["bad.tgz"]


def test_a_python_without_filters_is_told_which_has_them(tmp_path, monkeypatch):
    (tmp_path / ARCHIVE).write_bytes(FLOWERS[ARCHIVE])
    monkeypatch.delattr(tarfile, "data_filter")
    with pytest.raises(DownloadError, match=r"3\.11\.4"):
        download.extract(tmp_path / ARCHIVE, tmp_path / "unpacked")


def test_too_little_disk_is_seen_before_unpacking(mirror, tmp_path, monkeypatch):
    say_free(monkeypatch, SIZE)  # enough for the archive, not for blocks of 4096
    with pytest.raises(DownloadError, match=rf"unpacking {ARCHIVE} needs .* MB"):
        get(mirror, tmp_path)
    assert_nothing_looks_finished(tmp_path)
    requests = len(mirror.log)
    monkeypatch.undo()
    get(mirror, tmp_path)
    assert len(mirror.log) == requests
    assert_complete(tmp_path)


# --- arranging ---


@pytest.mark.parametrize(
    ("labels", "trnid", "words"),
    [
        ([1, 2, 103], [1], "outside 1 to 102"),
        ([1, 2, 3], [4], "3 labels"),
        ([1, 2, 3], [0], "3 labels"),
        ([1, 2, 3], [2], "twice"),
        ([1, 2, 3], [1], "image_00001.jpg"),
    ],
)
def test_labels_that_do_not_fit_are_refused(labels, trnid, words, tmp_path):
    (tmp_path / "labels.mat").write_bytes(mat_bytes(labels=labels))
    (tmp_path / "setid.mat").write_bytes(mat_bytes(trnid=trnid, valid=[2], tstid=[3]))
    with pytest.raises(DownloadError, match=words):
        download.arrange(tmp_path, tmp_path / "labels.mat", tmp_path / "setid.mat", tmp_path / "to")


@pytest.mark.parametrize("content", [b"not matlab", b"", mat_bytes(other=[1])])
def test_unreadable_labels_are_refused_by_name(content, tmp_path):
    (tmp_path / "labels.mat").write_bytes(content)
    with pytest.raises(DownloadError, match=r"labels\.mat"):
        download.arrange(tmp_path, tmp_path / "labels.mat", tmp_path / "s.mat", tmp_path / "to")
