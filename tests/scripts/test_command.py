"""What command lines share: numbers, files to write, and one line for foreseen errors."""

import argparse
import errno
import os
import sys

import command
import pytest
from conftest import ON_TENSORFLOW
from PIL import Image
from processes import assert_one_line, end, start_python

from diffusion.support.files import written_whole


def refused(kind, text):
    """The message with which an argparse type refuses a text."""
    with pytest.raises(argparse.ArgumentTypeError) as error:
        kind(str(text))
    return str(error.value)


def test_numbers_pass_within_their_range_alone():
    for text in ("0", "-1", "x", "1.5", ""):
        assert f"at least 1, got {text!r}" in refused(command.number(least=1), text)
    assert command.number(least=1, most=3)("3") == 3
    assert command.number(float, above=0, most=1)("0.5") == 0.5
    for text in ("nan", "inf"):
        assert "above 0" in refused(command.number(float, above=0), text)
    assert command.SEED(str(2**32 - 1)) == 2**32 - 1
    assert str(2**32 - 1) in refused(command.SEED, 2**32)


def test_a_wrong_name_lists_the_choices():
    assert command.one_of(("a", "b"))("b") == "b"
    assert "'c': choose one of a, b" in refused(command.one_of(("a", "b")), "c")


def test_a_data_folder_may_be_written_from_the_home_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "flowers").mkdir()
    assert command.data_folder("~/flowers") == str(tmp_path / "flowers")
    assert "no images under" in refused(command.data_folder, "~/none")


# --- files to write ---


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".gif", ".webp"])
def test_a_picture_may_be_replaced_by_one_of_its_format_alone(suffix, tmp_path):
    path = tmp_path / f"a{suffix}"
    assert command.writable()(str(path)) == path
    Image.new("RGB", (8, 8)).save(path)
    assert command.writable()(str(path)) == path
    other = tmp_path / f"b{'.png' if suffix != '.png' else '.jpg'}"
    path.rename(other)
    assert "exists" in refused(command.writable(), other)


def test_an_empty_file_may_be_replaced_and_an_unknown_kind_may_not(tmp_path):
    path = tmp_path / "a.json"
    path.touch()
    assert command.writable(".json")(str(path)) == path
    path.write_text("{}")
    assert "exists" in refused(command.writable(".json"), path)
    assert command.writable(".json", like=lambda content: content == {})(str(path)) == path
    path.write_text("not JSON")
    assert "exists" in refused(command.writable(".json", like=lambda content: True), path)


@pytest.mark.parametrize("content", ["<?xml version='1.0'?><svg/>", "%PDF-1.4"])
def test_figures_of_matplotlib_are_recognised(content, tmp_path):
    svg, pdf = tmp_path / "a.svg", tmp_path / "a.pdf"
    for path in (svg, pdf):
        path.write_text(content)
    same, other = (svg, pdf) if "svg" in content else (pdf, svg)
    assert command.writable(".svg", ".pdf")(str(same)) == same
    assert "exists" in refused(command.writable(".svg", ".pdf"), other)


def test_folders_and_places_that_cannot_be_written_are_refused(tmp_path):
    (tmp_path / "file").touch()
    (tmp_path / "folder.png").mkdir()
    assert "is a folder" in refused(command.writable(), tmp_path / "folder.png")
    assert "cannot be written" in refused(command.writable(), tmp_path / "file" / "a.png")
    assert not command.writable()(str(tmp_path / "new" / "a.png")).parent.exists()
    if sys.platform == "linux":
        assert "cannot be written" in refused(command.writable(), "/proc/a.png")


def test_a_full_disk_is_reported_with_the_path(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("before")
    with pytest.raises(OSError, match=r"a\.txt.*intact") as error, written_whole(path):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    assert error.value.errno == errno.ENOSPC and path.read_text() == "before"
    assert [file.name for file in tmp_path.iterdir()] == ["a.txt"]


# --- errors ---

on_tensorflow = pytest.mark.skipif(not ON_TENSORFLOW, reason="TensorFlow's own errors")


def ended(error, capsys):
    """Run a `main` that raises this error: the status, and what is on standard error."""

    def main():
        raise error

    with pytest.raises(SystemExit) as stopped:
        command.run(main)
    return stopped.value.code, capsys.readouterr().err


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (ValueError("two\nlines"), "two lines"),
        (OSError(28, "No space left"), "No space left"),
        (MemoryError(), "out of memory"),
        (ModuleNotFoundError("no", name="numpy"), "'numpy'"),
        pytest.param("OOM when allocating\n\nmore", "out of memory", marks=on_tensorflow),
    ],
)
def test_foreseen_errors_are_one_line_with_status_2(error, words, capsys):
    if isinstance(error, str):
        import tensorflow as tf

        error = tf.errors.ResourceExhaustedError(None, None, error)
    status, errors = ended(error, capsys)
    assert status == 2
    assert_one_line(errors, words)


def test_a_defect_keeps_its_trace_back(capsys):
    with pytest.raises(ZeroDivisionError):
        command.run(lambda: 1 / 0)


def test_ctrl_c_is_one_line_with_status_130(capsys):
    assert ended(KeyboardInterrupt(), capsys) == (130, "stopped\n")


def test_without_tensorflow_but_with_jax_the_advice_is_the_backend(monkeypatch, capsys):
    monkeypatch.delenv("KERAS_BACKEND", raising=False)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: name)
    _, errors = ended(ModuleNotFoundError("no", name="tensorflow.python"), capsys)
    assert_one_line(errors, "KERAS_BACKEND=jax")


@pytest.mark.slow
def test_command_needs_the_standard_library_alone():
    program = "import sys; sys.path.insert(0, 'scripts'); import command; print(*sys.modules)"
    ((status, imported, errors),) = end([start_python("-S", "-c", program)], timeout=60)
    assert status == 0, errors
    assert {"numpy", "keras", "diffusion"}.isdisjoint(imported.split())
