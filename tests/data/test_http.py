"""Downloading one file from a real server on localhost that drops, lies and refuses."""

import hashlib
import os

import pytest
from mirror import ARCHIVE, FLOWERS, HALF, SIZE, SUMS, say_free

from diffusion.data import http
from diffusion.data.http import DownloadError


@pytest.fixture
def part(tmp_path):
    return tmp_path / f"{ARCHIVE}.part"


def fetch(mirror, folder, retries=0):
    """Download the archive; return the requests that it took."""
    path = http.fetch(
        mirror.url + ARCHIVE, folder / ARCHIVE, SUMS[ARCHIVE], retries=retries, backoff=0.01
    )
    assert path.read_bytes() == FLOWERS[ARCHIVE]
    assert [file.name for file in folder.iterdir()] == [ARCHIVE]
    return mirror.requests()


def test_a_dropped_download_resumes_without_fetching_a_byte_twice(mirror, tmp_path):
    mirror.cuts = [HALF, 1000]
    first, second, third = fetch(mirror, tmp_path, retries=2)
    assert first["range"] is None
    assert (second["range"], second["status"]) == (f"bytes={HALF}-", 206)
    assert third["range"] == f"bytes={HALF + 1000}-"
    assert second["if_range"] == '"1"'
    assert first["sent"] + second["sent"] + third["sent"] == SIZE


def test_progress_renews_the_retries(mirror, tmp_path):
    mirror.cuts = [SIZE // 10] * 8
    assert len(fetch(mirror, tmp_path, retries=1)) == 9


def test_a_file_that_has_changed_is_read_from_the_start(mirror, tmp_path, part):
    part.write_bytes(b"x" * HALF)
    part.with_suffix(".tag").write_text('"0"')
    (request,) = fetch(mirror, tmp_path)
    assert (request["range"], request["if_range"]) == (f"bytes={HALF}-", '"0"')
    assert request["status"] == 200


def test_a_weak_etag_is_not_used_to_resume(mirror, tmp_path):
    mirror.headers, mirror.cuts = {"ETag": 'W/"1"'}, [HALF]
    assert fetch(mirror, tmp_path, retries=1)[1]["if_range"] is None


def test_a_complete_part_needs_no_request(mirror, tmp_path, part):
    part.write_bytes(FLOWERS[ARCHIVE])
    assert fetch(mirror, tmp_path) == []


def test_a_part_longer_than_the_file_is_dropped(mirror, tmp_path, part):
    part.write_bytes(b"x" * (SIZE + 1))
    requests = fetch(mirror, tmp_path, retries=1)
    assert [request["status"] for request in requests] == [416, 200]


def test_a_busy_server_is_tried_again_and_what_it_labels_as_encoded_is_kept(mirror, tmp_path):
    mirror.answers, mirror.headers = [503, 429], {"Content-Encoding": "x-gzip"}
    mirror.tells_length = False
    assert len(fetch(mirror, tmp_path, retries=2)) == 3


def test_a_wrong_checksum_names_both_sums_and_leaves_nothing(mirror, tmp_path):
    mirror.files[ARCHIVE] = b"<html>please log in</html>"
    wrong = hashlib.md5(mirror.files[ARCHIVE]).hexdigest()
    with pytest.raises(DownloadError, match=f"{wrong}.*{SUMS[ARCHIVE]}"):
        fetch(mirror, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_missing_file_is_not_requested_again(mirror, tmp_path):
    del mirror.files[ARCHIVE]
    with pytest.raises(DownloadError, match=rf"{ARCHIVE}.*404.*--base-url"):
        fetch(mirror, tmp_path, retries=2)
    assert len(mirror.requests()) == 1


@pytest.mark.parametrize(
    ("address", "words"),
    [
        ("http://127.0.0.1:9/", "Connection refused"),
        ("flowers", "'?flowers"),
        ("file:///etc", "file:///etc"),
        ("http://", "http://"),
    ],
)
def test_an_address_without_a_server_is_one_line(address, words, tmp_path):
    with pytest.raises(DownloadError, match=words) as caught:
        http.fetch(address, tmp_path / "a", "", 1, 0.01)
    assert "\n" not in str(caught.value) and "--base-url" in str(caught.value)


# --- disk nearly full ---


def test_room_is_needed_for_what_is_still_to_come(mirror, tmp_path, monkeypatch, part):
    say_free(monkeypatch, SIZE - 1)
    with pytest.raises(DownloadError, match=rf"{ARCHIVE} needs .* MB"):
        fetch(mirror, tmp_path)
    assert not part.exists()
    part.write_bytes(FLOWERS[ARCHIVE][:-1000])
    say_free(monkeypatch, 1000)
    fetch(mirror, tmp_path)


def test_a_server_that_ignores_ranges_is_read_from_the_start_into_the_room_of_the_old_part(
    mirror, tmp_path, monkeypatch, part
):
    mirror.knows_ranges = False
    part.write_bytes(FLOWERS[ARCHIVE][:HALF])
    say_free(monkeypatch, SIZE - HALF)
    (request,) = fetch(mirror, tmp_path)
    assert request["status"] == 200


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full")
def test_a_disk_that_fills_up_is_one_line(mirror, tmp_path, monkeypatch, part):
    monkeypatch.setattr(http, "md5_of", lambda path: "none")  # /dev/full has no end
    part.symlink_to("/dev/full")
    with pytest.raises(DownloadError, match=f"{tmp_path}.*run again to resume"):
        fetch(mirror, tmp_path)
    assert not (tmp_path / ARCHIVE).exists()
