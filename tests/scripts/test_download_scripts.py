"""The script that downloads from Oxford, and the one behind `make data`."""

import runpy
import shutil
import signal
import sys
import threading

import pytest
from mirror import (
    ARCHIVE,
    HALF,
    SIZE,
    SUMS,
    archive_part,
    assert_complete,
    assert_nothing_looks_finished,
    running_mirror,
)
from processes import SCRIPTS, run, start, stop, wait_for

OXFORD = [sys.executable, str(SCRIPTS / "download_oxford_data.py")]
BOOK = ["nunenuh", "pytorch-challange-flower-dataset"]


@pytest.fixture
def mirror():
    with running_mirror() as server:
        yield server


@pytest.fixture
def oxford(mirror, tmp_path):
    """The command line that downloads the small flowers to `tmp_path / data`."""
    sums = tmp_path / "sums.txt"
    sums.write_text("".join(f"{md5}  {name}\n" for name, md5 in SUMS.items()))
    options = ["--data-dir", tmp_path / "data", "--base-url", mirror.url, "--checksums", sums]
    return [*OXFORD, *options, "--retries", "1"]


@pytest.mark.slow
def test_the_flowers_are_downloaded_with_a_log_in_lines(oxford, tmp_path):
    code, said = run(oxford, tmp_path)
    assert (code, "\r" in said) == (0, False)
    assert said.endswith("oxford-102-flowers is complete: 10 train, 4 valid, 10 test\n")
    assert_complete(tmp_path / "data")


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_download_resumes(number, oxford, mirror, tmp_path):
    mirror.cuts, mirror.hold = [HALF], threading.Event()
    process = start(oxford, tmp_path)
    part = archive_part(tmp_path / "data")
    wait_for(lambda: part.exists() and part.stat().st_size > HALF // 2)
    code, said = stop(process, number)
    if number == signal.SIGINT:
        assert (code, "Traceback" in said) == (130, False)
        assert "resume" in said.splitlines()[-1]
    kept = part.stat().st_size
    assert_nothing_looks_finished(tmp_path / "data")
    mirror.hold.set()
    assert run(oxford, tmp_path)[0] == 0
    request = mirror.requests_for()[1]
    assert (request["range"], request["sent"]) == (f"bytes={kept}-", SIZE - kept)
    assert_complete(tmp_path / "data")


@pytest.mark.slow
def test_a_failed_download_is_one_line(oxford, mirror, tmp_path):
    del mirror.files[ARCHIVE]
    code, said = run(oxford, tmp_path)
    assert (code, said.count("error: ")) == (2, 1)
    assert f"{mirror.url}{ARCHIVE} answered 404" in said.splitlines()[-1]
    assert_nothing_looks_finished(tmp_path / "data")


@pytest.mark.parametrize(
    ("option", "value", "words"),
    [
        ("--checksums", "binary", "binary"),
        ("--checksums", "none.txt", "none.txt"),
        ("--data-dir", "binary/data", "Not a directory"),
        ("--data-dir", "", "--data-dir"),
        ("--retries", "many", "'many'"),
        ("--retries", "-1", "'-1'"),
    ],
)
def test_bad_arguments_are_one_line(option, value, words, tmp_path, monkeypatch, capsys):
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(SCRIPTS)
    monkeypatch.setattr(sys, "argv", [OXFORD[1], option, value])
    with pytest.raises(SystemExit) as exit:
        runpy.run_path(OXFORD[1], run_name="__main__")
    said = capsys.readouterr().err
    assert (exit.value.code, said.count("\n"), said[:7]) == (2, 1, "error: ")
    assert words in said


# --- make data ---


@pytest.fixture
def project(tmp_path):
    """A project whose scripts only print what they were called with."""
    scripts = tmp_path / "project" / "scripts"
    scripts.mkdir(parents=True)
    shutil.copy(SCRIPTS / "download_data.sh", scripts)
    text = '[[ "$1" == --check ]] && exit "${CREDENTIALS:-2}"; echo kaggle "$@"'
    (scripts / "download_kaggle_data.sh").write_text(text)
    (scripts / "download_oxford_data.py").write_text("print('oxford')")
    return tmp_path / "project"


@pytest.mark.slow
def test_make_data_uses_kaggle_with_credentials_else_oxford(project, tmp_path):
    command = ["bash", project / "scripts" / "download_data.sh"]
    code, said = run(command, tmp_path)
    assert (code, said.splitlines()[0]) == (0, "oxford")
    assert run(command, tmp_path, CREDENTIALS="0") == (0, f"kaggle {' '.join(BOOK)}\n")
    assert run([*command, "--nope"], tmp_path)[0] == 2


@pytest.mark.slow
def test_make_data_accepts_what_is_there(project, tmp_path):
    command = ["bash", project / "scripts" / "download_data.sh"]
    (project / "data" / BOOK[1]).mkdir(parents=True)
    assert run(command, tmp_path) == (0, f"kaggle {' '.join(BOOK)}\n")
    (project / "data" / "oxford-102-flowers" / "dataset").mkdir(parents=True)
    assert run(command, tmp_path, CREDENTIALS="0") == (0, "oxford\n")
