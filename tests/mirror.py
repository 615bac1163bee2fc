"""A web server on localhost with small flowers to download, which drops, lies and refuses."""

import hashlib
import http.server
import io
import re
import shutil
import tarfile
import threading

import numpy as np
from PIL import Image
from scipy.io import savemat

ARCHIVE = "102flowers.tgz"
COUNT = 24


class Mirror(http.server.ThreadingHTTPServer):
    """A web server for `files`; the other attributes are what can go wrong."""

    daemon_threads = True

    def __init__(self, files, handler=None):
        super().__init__(("127.0.0.1", 0), handler or MirrorHandler)
        self.files = dict(files)
        self.etag = '"1"'
        self.knows_ranges = True
        self.tells_length = True
        self.headers = {}
        self.answers = []  # status codes for the next requests
        self.cuts = []  # for the next requests for the archive: bytes to send before hanging up
        self.hold = None  # an event to wait for instead of hanging up
        self.log = []  # dictionaries: name, range, status, sent
        threading.Thread(target=self.serve_forever, args=(0.01,), daemon=True).start()

    def handle_error(self, request, address):
        """Some clients are killed."""

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_port}/"

    def requests(self):
        """The requests for the archive."""
        return [entry for entry in self.log if entry["name"] == ARCHIVE]

    def stop(self):
        if self.hold is not None:
            self.hold.set()
        self.shutdown()
        self.server_close()


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
    """Oxford's three files in small: noise for flowers, classes 1, 2 and 102."""
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


FLOWERS = make_flowers()
SUMS = {name: hashlib.md5(content).hexdigest() for name, content in FLOWERS.items()}
SIZE = len(FLOWERS[ARCHIVE])
HALF = SIZE // 2


def assert_complete(data_dir):
    """Everything that should be there is, byte for byte, and nothing else."""
    (final,) = data_dir.iterdir()
    assert sorted(path.name for path in final.iterdir()) == ["cat_to_name.json", "dataset"]
    found = {path.relative_to(final).as_posix() for path in final.rglob("*.jpg")}
    splits = ["train"] * 10 + ["valid"] * 4 + ["test"] * 10
    places = ((n, f"dataset/{split}/{(1, 2, 102)[n % 3]}") for n, split in enumerate(splits, 1))
    assert found == {f"{place}/image_{n:05d}.jpg" for n, place in places}
    with tarfile.open(fileobj=io.BytesIO(FLOWERS[ARCHIVE])) as tar:
        for path in final.rglob("*.jpg"):
            assert path.read_bytes() == tar.extractfile(f"jpg/{path.name}").read()


def assert_nothing_looks_finished(data_dir):
    assert not (data_dir / "oxford-102-flowers").exists()


def archive_part(data_dir):
    return data_dir / ".oxford-102-flowers.partial" / f"{ARCHIVE}.part"


def say_free(monkeypatch, size):
    """Let every disk have this much free space."""
    usage = shutil.disk_usage("/")._replace(free=size)
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: usage)
