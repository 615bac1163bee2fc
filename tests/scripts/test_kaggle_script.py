"""The script that downloads from Kaggle: with a stand-in for its command line, and the real one."""

import io
import os
import signal
import sys
import threading
import zipfile
from pathlib import Path

import pytest
from mirror import ARCHIVE, Mirror, MirrorHandler
from processes import SCRIPTS, assert_one_line, run, start, stop, wait_for

KAGGLE = ["bash", str(SCRIPTS / "download_kaggle_data.sh")]
BOOK = ["nunenuh", "pytorch-challange-flower-dataset"]
REAL_KAGGLE = Path(sys.executable).with_name("kaggle")
pytestmark = pytest.mark.slow


def fake_kaggle(folder, script):
    """Put a `kaggle` first on PATH; `$partial` is the folder that it is to fill."""
    program = folder / "bin" / "kaggle"
    program.parent.mkdir(exist_ok=True)
    head = f'#!/usr/bin/env bash\necho "$@" >> "{folder}/calls"\npartial="$6"\n'
    program.write_text(head + script)
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


def test_without_credentials_the_keyless_way_is_named(tmp_path):
    environment = fake_kaggle(tmp_path, SUCCESS)
    del environment["KAGGLE_API_TOKEN"]
    code, said = run(kaggle(tmp_path), tmp_path, **environment)
    assert code == 2 and not (tmp_path / "calls").exists()
    assert "https://www.kaggle.com/settings/api" in said
    assert "python scripts/download_oxford_data.py" in said


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
def test_credentials_are_found_where_kaggle_looks(environment, file, code, tmp_path):
    if file:
        (tmp_path / "home" / file).parent.mkdir(parents=True)
        (tmp_path / "home" / file).write_text("{}")
    assert run([*KAGGLE, "--check"], tmp_path, **environment) == (code, "")


def test_a_data_set_is_downloaded_once(tmp_path):
    environment = fake_kaggle(tmp_path, SUCCESS)
    for word in ("complete", "already exists"):
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
        ("echo Traceback >&2; echo '401 Client Error' >&2; exit 1", "refuses the cred"),
        ("echo '403 Client Error: Forbidden for url' >&2; exit 1", "denies access"),
        ("echo '404 Client Error: Not Found for url' >&2; exit 1", "has no data set"),
        ("echo '[Errno 28] No space left on device' >&2; exit 1", "No space left on device"),
        ("exit 1", "it printed nothing"),
        ("exit 0", "holds no pictures"),
        ('touch "$partial/x.zip"; exit 0', "incomplete: run again to resume"),
    ],
)
def test_a_failure_is_one_line(script, message, tmp_path):
    code, said = run(kaggle(tmp_path), tmp_path, **fake_kaggle(tmp_path, script))
    announced, _, error = said.partition("\n")
    assert code == 2 and announced.startswith("downloading")
    assert_one_line(error, message)
    assert not kaggle_data(tmp_path).exists()


# The real kaggle exits with 0 after Ctrl-C.
HALF_WAY = 'trap "exit 0" INT; echo half > "$partial/a.zip"; sleep 20 >/dev/null 2>&1 & wait'


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_an_interrupted_download_is_not_taken_for_finished(number, tmp_path):
    environment = fake_kaggle(tmp_path, HALF_WAY)
    process = start(kaggle(tmp_path), tmp_path, **environment)
    half = tmp_path / "data" / f".{BOOK[1]}.partial" / "a.zip"
    wait_for(half.exists)
    code, said = stop(process, number)
    if number == signal.SIGINT:
        assert (code, "error" in said) == (130, False)
        assert "resume" in said.splitlines()[-1]
    assert half.exists()
    assert not kaggle_data(tmp_path).exists()
    fake_kaggle(tmp_path, SUCCESS)
    assert run(kaggle(tmp_path), tmp_path, **environment)[0] == 0
    assert kaggle_data(tmp_path).exists()


@pytest.mark.parametrize(
    "words", [[], ["one"], ["a", "b", "c"], ["a", "../b"], ["--nope"], ["--data-dir"], ["", "b"]]
)
def test_bad_arguments_are_one_line(words, tmp_path):
    code, said = run([*KAGGLE, *words], tmp_path)
    assert code == 2
    assert_one_line(said, "")


# --- Kaggle's own command line, with a stand-in for its server ---

REDIRECT = """
import os
from kagglesdk import kaggle_env
kaggle_env._env_to_endpoint[kaggle_env.KaggleEnv.PROD] = os.environ["TEST_ENDPOINT"]
"""


class KaggleHandler(MirrorHandler):
    """A mirror that first wants to be asked as Kaggle is."""

    def do_POST(self):
        self.rfile.read(int(self.headers["Content-Length"]))
        content = b'{"active":true,"username":"me"}'
        if self.server.answers:
            self.send_response(self.server.answers.pop(0))
        elif self.path.endswith("/DownloadDataset"):
            self.send_response(302)
            self.send_header("Location", f"/{ARCHIVE}")
        else:
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            return self.wfile.write(content)
        self.send_header("Content-Length", "0")
        self.end_headers()


@pytest.fixture
def kaggle_server(tmp_path):
    if not REAL_KAGGLE.exists():
        pytest.skip("kaggle is not installed beside this Python")
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "sitecustomize.py").write_text(REDIRECT)
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("dataset/train/1/image_00001.jpg", os.urandom(4 << 20))
    server = Mirror({ARCHIVE: buffer.getvalue()}, KaggleHandler)
    server.headers = {"Content-Type": "application/zip", "Accept-Ranges": "bytes"}
    server.environment = {
        "PATH": f"{REAL_KAGGLE.parent}:{os.environ['PATH']}",
        "PYTHONPATH": str(tmp_path / "site"),
        "TEST_ENDPOINT": server.url.rstrip("/"),
        "KAGGLE_API_TOKEN": "token",
    }
    yield server
    server.stop()


@pytest.mark.parametrize(("status", "message"), [(401, "refuses the cred"), (403, "denies access")])
def test_a_refusal_of_the_real_kaggle_is_one_line(status, message, kaggle_server, tmp_path):
    kaggle_server.answers = [status] * 9
    code, said = run(kaggle(tmp_path), tmp_path, **kaggle_server.environment)
    assert (code, len(said.splitlines())) == (2, 2)
    assert message in said
    assert not kaggle_data(tmp_path).exists()


def test_the_real_kaggle_resumes_when_interrupted(kaggle_server, tmp_path):
    kaggle_server.cuts, kaggle_server.hold = [2 << 20], threading.Event()
    process = start(kaggle(tmp_path), tmp_path, **kaggle_server.environment)
    part = tmp_path / "data" / f".{BOOK[1]}.partial" / f"{BOOK[1]}.zip"
    wait_for(lambda: part.exists() and part.stat().st_size >= 1 << 20)
    code, said = stop(process, signal.SIGINT)
    assert (code, "Traceback" in said) == (130, False)
    assert not kaggle_data(tmp_path).exists()
    kaggle_server.hold.set()
    assert run(kaggle(tmp_path), tmp_path, **kaggle_server.environment)[0] == 0
    assert kaggle_server.requests()[-1]["status"] == 206
    image = kaggle_data(tmp_path) / "dataset/train/1/image_00001.jpg"
    assert image.stat().st_size == 4 << 20
