"""The scripts that download, run as a reader runs them: as processes, from another folder."""

import http.server
import io
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
import zipfile
from pathlib import Path

import pytest
from test_download import (
    ARCHIVE,
    FLOWERS,
    HALF,
    SIZE,
    SUMS,
    Mirror,
    archive_part,
    assert_complete,
    assert_nothing_looks_finished,
)

SCRIPTS = Path(__file__).resolve().parents[2] / "scripts"
OXFORD = [sys.executable, str(SCRIPTS / "download_oxford_data.py")]
KAGGLE = ["bash", str(SCRIPTS / "download_kaggle_data.sh")]
BOOK = ["nunenuh", "pytorch-challange-flower-dataset"]
REAL_KAGGLE = Path(sys.executable).with_name("kaggle")


def start(command, folder, **environment):
    """A process without credentials, in a session of its own, so that Ctrl-C reaches all of it."""
    home = folder / "home"
    home.mkdir(exist_ok=True)
    clean = {key: value for key, value in os.environ.items() if not key.startswith("KAGGLE_")}
    return subprocess.Popen(
        [str(word) for word in command],
        cwd=home,
        env={**clean, "HOME": str(home), **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def run(command, folder, **environment):
    process = start(command, folder, **environment)
    output, errors = process.communicate(timeout=30)
    assert "Traceback" not in output + errors
    return process.returncode, output + errors


def wait_for(condition):
    for _ in range(2000):
        if condition():
            return
        time.sleep(0.01)
    raise AssertionError("it never came to that")


def stop(process, number):
    """Send a signal to the process and all its children, as a terminal does."""
    os.killpg(process.pid, number)
    output, errors = process.communicate(timeout=30)
    return process.returncode, output + errors


# --- Oxford --------------------------------------------------------------------------------------


@pytest.fixture
def mirror():
    server = Mirror(FLOWERS)
    yield server
    if server.hold is not None:
        server.hold.set()
    server.shutdown()
    server.server_close()


@pytest.fixture
def oxford(mirror, tmp_path):
    """The command line that gets the small flowers from the mirror into `tmp_path / data`."""
    sums = tmp_path / "sums.txt"
    sums.write_text("".join(f"{md5}  {name}\n" for name, md5 in SUMS.items()))
    options = ["--data-dir", tmp_path / "data", "--base-url", mirror.url, "--checksums", sums]
    return [*OXFORD, *options, "--retries", "1"]


def test_oxford_script_brings_the_flowers_once(oxford, mirror, tmp_path):
    code, said = run(oxford, tmp_path)
    assert code == 0
    assert said.endswith("oxford-102-flowers is complete: 10 train, 4 valid, 10 test\n")
    assert "\r" not in said
    assert_complete(tmp_path / "data")
    asked = len(mirror.log)
    code, said = run(oxford, tmp_path)
    assert (code, len(mirror.log)) == (0, asked)
    assert said.endswith("oxford-102-flowers is already complete: nothing to do\n")


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT, signal.SIGTERM])
def test_oxford_script_that_was_stopped_half_way_resumes(number, oxford, mirror, tmp_path):
    mirror.cuts, mirror.hold = [HALF], threading.Event()
    process = start(oxford, tmp_path)
    part = archive_part(tmp_path / "data")
    wait_for(lambda: part.exists() and part.stat().st_size > HALF // 2)
    code, said = stop(process, number)
    if number == signal.SIGINT:
        assert code == 130
        assert said.endswith("stopped: the same call resumes where this one was\n")
        assert "Traceback" not in said
    kept = part.stat().st_size
    assert_nothing_looks_finished(tmp_path / "data")
    mirror.hold.set()
    assert run(oxford, tmp_path)[0] == 0
    assert mirror.asked_for()[1]["range"] == f"bytes={kept}-"
    assert mirror.asked_for()[1]["sent"] == SIZE - kept
    assert_complete(tmp_path / "data")


def test_oxford_script_says_errors_in_one_line(oxford, mirror, tmp_path):
    del mirror.files[ARCHIVE]
    code, said = run(oxford, tmp_path)
    assert code == 2
    assert said.splitlines()[-1].startswith(f"error: {mirror.url}{ARCHIVE} answered 404")
    code, said = run([*oxford, "--base-url", "http://127.0.0.1:9"], tmp_path)
    assert (code, said.count("error: ")) == (2, 1)
    assert "Connection refused" in said.splitlines()[-1]
    assert_nothing_looks_finished(tmp_path / "data")


def test_oxford_script_names_bad_arguments(oxford, tmp_path):
    (tmp_path / "wrong.txt").write_text("abc  other.tgz\n")
    (tmp_path / "file").write_text("")
    for option, value, word in [
        ("--checksums", tmp_path / "wrong.txt", "must hold a line"),
        ("--checksums", tmp_path / "none.txt", "none.txt"),
        ("--data-dir", tmp_path / "file" / "data", "Not a directory"),
        ("--retries", "many", "invalid int"),
    ]:
        code, said = run([*oxford, option, value], tmp_path)
        assert code == 2
        assert word in said.splitlines()[-1]


def test_oxford_help_explains_each_option(tmp_path):
    code, said = run([*OXFORD, "--help"], tmp_path)
    assert code == 0
    for option in ("--data-dir", "--base-url", "--checksums", "--retries"):
        assert option in said


# --- Kaggle, with a stand-in for its command line ------------------------------------------------


def fake_kaggle(folder, script):
    """A `kaggle` that comes first on PATH; `$partial` is the folder it is told to fill."""
    program = folder / "bin" / "kaggle"
    program.parent.mkdir(exist_ok=True)
    program.write_text(
        f'#!/usr/bin/env bash\necho "$@" >> "{folder}/calls"\npartial="$6"\n{script}'
    )
    program.chmod(0o755)
    return {"PATH": f"{program.parent}:{os.environ['PATH']}", "KAGGLE_API_TOKEN": "token"}


SUCCESS = """
mkdir -p "$partial/dataset/train/1" && echo jpg > "$partial/dataset/train/1/image_00001.jpg"
rm -f "$partial"/*.zip
"""


def kaggle(folder):
    return [*KAGGLE, "--data-dir", folder / "data", *BOOK]


def kaggle_data(folder):
    return folder / "data" / BOOK[1]


def test_kaggle_script_without_credentials_names_the_keyless_way(tmp_path):
    environment = fake_kaggle(tmp_path, SUCCESS)
    del environment["KAGGLE_API_TOKEN"]
    code, said = run(kaggle(tmp_path), tmp_path, **environment)
    assert code == 2
    assert said.count("error: no credentials for Kaggle") == 1
    assert "https://www.kaggle.com/settings/api" in said
    assert "python scripts/download_oxford_data.py" in said
    assert not (tmp_path / "calls").exists()
    assert not kaggle_data(tmp_path).exists()


@pytest.mark.parametrize(
    ("environment", "file", "code"),
    [
        ({}, None, 2),
        ({"KAGGLE_USERNAME": "me"}, None, 2),
        ({"KAGGLE_USERNAME": "me", "KAGGLE_KEY": "key"}, None, 0),
        ({"KAGGLE_API_TOKEN": "token"}, None, 0),
        ({}, ".kaggle/kaggle.json", 0),
        ({}, ".config/kaggle/kaggle.json", 0),
        ({}, ".kaggle/access_token", 0),
        ({}, ".kaggle/credentials.json", 0),
        ({"KAGGLE_CONFIG_DIR": "elsewhere"}, "elsewhere/kaggle.json", 0),
        ({"KAGGLE_CONFIG_DIR": "elsewhere"}, ".kaggle/kaggle.json", 2),
    ],
)
def test_kaggle_credentials_are_found_where_kaggle_looks(environment, file, code, tmp_path):
    if file:
        (tmp_path / "home" / file).parent.mkdir(parents=True)
        (tmp_path / "home" / file).write_text("{}")
    assert run([*KAGGLE, "--check"], tmp_path, **environment) == (code, "")


def test_kaggle_script_unpacks_once(tmp_path):
    environment = fake_kaggle(tmp_path, SUCCESS)
    for word in ("complete", "already there"):
        code, said = run(kaggle(tmp_path), tmp_path, **environment)
        assert (code, word in said.splitlines()[-1]) == (0, True)
    assert [path.name for path in (tmp_path / "data").iterdir()] == [BOOK[1]]
    assert (kaggle_data(tmp_path) / "dataset/train/1/image_00001.jpg").exists()
    (call,) = (tmp_path / "calls").read_text().splitlines()
    assert call.startswith(f"datasets download {'/'.join(BOOK)} --unzip --path ")


@pytest.mark.parametrize(
    ("script", "message"),
    [
        ("echo 'Authentication required to call the Kaggle API.'; exit 1", "refuses the cred"),
        (
            "echo Traceback >&2; echo '401 Client Error: Unauthorized' >&2; exit 1",
            "refuses the cred",
        ),
        ("echo '403 Client Error: Forbidden for url' >&2; exit 1", "denies access"),
        ("echo '404 Client Error: Not Found for url' >&2; exit 1", "knows no data set"),
        ("echo '[Errno 28] No space left on device' >&2; exit 1", "No space left on device"),
        ("exit 1", "it said nothing"),
        ("exit 0", "holds no images"),
        ('touch "$partial/x.zip"; exit 0', "not complete: run again to resume"),
    ],
)
def test_kaggle_failure_is_one_line(script, message, tmp_path):
    code, said = run(kaggle(tmp_path), tmp_path, **fake_kaggle(tmp_path, script))
    announced, error = said.splitlines()
    assert (code, announced.startswith("downloading")) == (2, True)
    assert error.startswith("error: ")
    assert message in error
    assert not kaggle_data(tmp_path).exists()


# The true kaggle ends with 0 after Ctrl-C.
HALF_WAY = 'trap "exit 0" INT; echo half > "$partial/a.zip"; sleep 20 >/dev/null 2>&1 & wait'


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_interrupted_kaggle_is_not_taken_for_finished(number, tmp_path):
    environment = fake_kaggle(tmp_path, HALF_WAY)
    process = start(kaggle(tmp_path), tmp_path, **environment)
    half = tmp_path / "data" / f".{BOOK[1]}.partial" / "a.zip"
    wait_for(half.exists)
    code, said = stop(process, number)
    if number == signal.SIGINT:
        assert code == 130
        assert said.endswith("stopped: the same call resumes where this one was\n")
        assert "error" not in said
    assert half.exists()
    assert not kaggle_data(tmp_path).exists()
    fake_kaggle(tmp_path, SUCCESS)
    assert run(kaggle(tmp_path), tmp_path, **environment)[0] == 0
    assert kaggle_data(tmp_path).exists()


@pytest.mark.parametrize(
    "words", [[], ["one"], ["a", "b", "c"], ["a", "../b"], ["--nope"], ["--data-dir"], ["", "b"]]
)
def test_kaggle_script_names_bad_arguments(words, tmp_path):
    code, said = run([*KAGGLE, *words], tmp_path)
    assert (code, len(said.splitlines()), said[:7]) == (2, 1, "error: ")


# --- Kaggle's own command line, against a stand-in for its server --------------------------------

REDIRECT = """
import os
from kagglesdk import kaggle_env
kaggle_env._env_to_endpoint[kaggle_env.KaggleEnv.PROD] = os.environ["TEST_ENDPOINT"]
"""


class KaggleHandler(http.server.BaseHTTPRequestHandler):
    def log_message(self, *arguments):
        pass

    def answer(self, status, content=b"", **headers):
        self.send_response(status)
        for key, value in headers.items():
            self.send_header(key.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.server.hold is not None and self.command == "GET":
            self.wfile.write(content[: len(content) // 2])
            self.server.hold.wait(20)
        else:
            self.wfile.write(content)

    def do_POST(self):
        self.rfile.read(int(self.headers["Content-Length"]))
        if self.server.refuse:
            self.answer(self.server.refuse)
        elif self.path.endswith("/DownloadDataset"):
            self.answer(302, Location="/storage/archive.zip")
        else:
            self.answer(200, b'{"active":true,"username":"me"}', Content_Type="application/json")

    def do_GET(self):
        asked = self.headers.get("Range")
        self.server.evaluations.append(asked)
        content = self.server.archive[int(asked[len("bytes=") : -1]) if asked else 0 :]
        headers = {"Content_Type": "application/zip", "ETag": '"1"', "Accept_Ranges": "bytes"}
        self.answer(206 if asked else 200, content, **headers)


@pytest.fixture
def kaggle_server(tmp_path):
    if not REAL_KAGGLE.exists():
        pytest.skip("kaggle is not installed beside this Python")
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "sitecustomize.py").write_text(REDIRECT)
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), KaggleHandler)
    server.daemon_threads, server.handle_error = True, lambda *arguments: None
    server.evaluations, server.refuse, server.hold = [], None, None
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("dataset/train/1/image_00001.jpg", os.urandom(4 << 20))
    server.archive = buffer.getvalue()
    server.environment = {
        "PATH": f"{REAL_KAGGLE.parent}:{os.environ['PATH']}",
        "PYTHONPATH": str(tmp_path / "site"),
        "TEST_ENDPOINT": f"http://127.0.0.1:{server.server_port}",
        "KAGGLE_API_TOKEN": "token",
    }
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize(("status", "message"), [(401, "refuses the cred"), (403, "denies access")])
def test_true_kaggle_that_refuses_is_one_line(status, message, kaggle_server, tmp_path):
    kaggle_server.refuse = status
    code, said = run(kaggle(tmp_path), tmp_path, **kaggle_server.environment)
    assert (code, len(said.splitlines())) == (2, 2)
    assert message in said
    assert not kaggle_data(tmp_path).exists()


def test_true_kaggle_that_was_interrupted_resumes(kaggle_server, tmp_path):
    kaggle_server.hold = threading.Event()
    process = start(kaggle(tmp_path), tmp_path, **kaggle_server.environment)
    part = tmp_path / "data" / f".{BOOK[1]}.partial" / f"{BOOK[1]}.zip"
    wait_for(lambda: part.exists() and part.stat().st_size >= 1 << 20)
    code, said = stop(process, signal.SIGINT)
    assert (code, "Traceback" in said) == (130, False)
    assert not kaggle_data(tmp_path).exists()
    kaggle_server.hold.set()
    kaggle_server.hold = None
    assert run(kaggle(tmp_path), tmp_path, **kaggle_server.environment)[0] == 0
    assert kaggle_server.evaluations[-1].startswith("bytes=")
    image = kaggle_data(tmp_path) / "dataset/train/1/image_00001.jpg"
    assert image.stat().st_size == 4 << 20


# --- make data -----------------------------------------------------------------------------------


@pytest.fixture
def project(tmp_path):
    """A project of which the scripts only say what they were called with."""
    scripts = tmp_path / "project" / "scripts"
    scripts.mkdir(parents=True)
    shutil.copy(SCRIPTS / "download_data.sh", scripts)
    text = '[[ "$1" == --check ]] && exit "${CREDENTIALS:-2}"; echo kaggle "$@"'
    (scripts / "download_kaggle_data.sh").write_text(text)
    (scripts / "download_oxford_data.py").write_text("print('oxford')")
    return tmp_path / "project"


def test_make_data_takes_kaggle_with_credentials_else_oxford(project, tmp_path):
    command = ["bash", project / "scripts" / "download_data.sh"]
    code, said = run(command, tmp_path)
    assert (code, said.splitlines()[0]) == (0, "oxford")
    assert run(command, tmp_path, CREDENTIALS="0") == (0, f"kaggle {' '.join(BOOK)}\n")
    assert run([*command, "--nope"], tmp_path)[0] == 2


def test_make_data_is_content_with_what_is_there(project, tmp_path):
    command = ["bash", project / "scripts" / "download_data.sh"]
    (project / "data" / BOOK[1]).mkdir(parents=True)
    assert run(command, tmp_path) == (0, f"kaggle {' '.join(BOOK)}\n")
    (project / "data" / "oxford-102-flowers" / "dataset").mkdir(parents=True)
    assert run(command, tmp_path, CREDENTIALS="0") == (0, "oxford\n")
