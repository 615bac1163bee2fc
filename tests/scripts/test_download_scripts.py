"""The script that downloads from Oxford, and the one behind `make data`."""

import shutil
import signal
import sys
import threading

import pytest
from mirror import (
    HALF,
    SIZE,
    SUMS,
    archive_part,
    assert_complete,
    assert_nothing_looks_finished,
)
from processes import SCRIPTS, assert_one_line, run, start, stop, wait_for

BOOK = ["nunenuh", "pytorch-challange-flower-dataset"]


@pytest.fixture
def oxford(mirror, tmp_path):
    """The command line that downloads the small flowers to `tmp_path / data`."""
    sums = tmp_path / "sums.txt"
    sums.write_text("".join(f"{md5}  {name}\n" for name, md5 in SUMS.items()))
    options = ["--data-dir", tmp_path / "data", "--base-url", mirror.url, "--checksums", sums]
    script = SCRIPTS / "download_oxford_data.py"
    return [sys.executable, script, *options, "--retries", "1"]


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_download_resumes_with_a_log_in_lines(number, oxford, mirror, tmp_path):
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
    code, said = run(oxford, tmp_path)
    assert code == 0 and "\r" not in said
    assert said.endswith("oxford-102-flowers is complete: 10 train, 4 valid, 10 test\n")
    request = mirror.requests()[1]
    assert (request["range"], request["sent"]) == (f"bytes={kept}-", SIZE - kept)
    assert_complete(tmp_path / "data")


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
def test_bad_arguments_are_one_line(option, value, words, tmp_path, monkeypatch, call):
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00")
    monkeypatch.chdir(tmp_path)
    status, _, errors = call("download_oxford_data.py", option, value)
    assert status == 2
    assert_one_line(errors, words)


# --- make data ---


@pytest.fixture
def make_data(tmp_path):
    """Run download_data.sh in a project whose other scripts only print what they are called with.

    The project is `tmp_path / "project"`.
    """
    scripts = tmp_path / "project" / "scripts"
    scripts.mkdir(parents=True)
    shutil.copy(SCRIPTS / "download_data.sh", scripts)
    text = '[[ "$1" == --check ]] && exit "${CREDENTIALS:-2}"; echo kaggle "$@"'
    (scripts / "download_kaggle_data.sh").write_text(text)
    (scripts / "download_oxford_data.py").write_text("print('oxford')")
    command = ["bash", scripts / "download_data.sh"]
    return lambda *options, **environment: run([*command, *options], tmp_path, **environment)


@pytest.mark.slow
def test_make_data_uses_kaggle_with_credentials_else_oxford_or_what_is_there(make_data, tmp_path):
    kaggle = 0, f"kaggle {' '.join(BOOK)}\n"
    code, said = make_data()
    assert (code, said.splitlines()[0]) == (0, "oxford")
    assert make_data(CREDENTIALS="0") == kaggle
    assert make_data("--nope")[0] == 2
    data = tmp_path / "project" / "data"
    (data / BOOK[1]).mkdir(parents=True)
    assert make_data() == kaggle
    (data / "oxford-102-flowers" / "dataset").mkdir(parents=True)
    assert make_data(CREDENTIALS="0") == (0, "oxford\n")
