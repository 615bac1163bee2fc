"""Loading: images with labels, splits and a fingerprint; bad files and arguments are named."""

import io
import os
import shutil
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
from flower_files import BLUE, GREEN, RED, colours, load, paint
from PIL import Image
from processes import run_python

import diffusion.data.flowers
from diffusion.data import painting, species
from diffusion.data.flowers import read_image


def test_images_labels_and_names_belong_together(kaggle, tmp_path, monkeypatch):
    flowers = load(kaggle, tmp_path)
    assert flowers.class_names == ("2", "globe thistle")
    assert flowers.labels.tolist() == [0, 1, 1] and flowers.labels.dtype == np.int64
    assert flowers.splits.tolist() == ["train", "train", "valid"]
    assert colours(flowers) == "grb"
    assert flowers.name == "my-flowers"
    assert len(flowers) == 3 and flowers.images.shape == (3, 16, 16, 3)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    assert load("~/my flowers", tmp_path).fingerprint == flowers.fingerprint


def test_splits_select_rows_and_keep_labels_comparable(kaggle, tmp_path):
    everything = load(kaggle, tmp_path)
    valid = load(kaggle, tmp_path, splits=("valid",))
    assert len(list((tmp_path / "cache").iterdir())) == 1  # it serves both
    assert valid.class_names == everything.class_names
    assert colours(valid) == "b" and valid.labels.tolist() == [1]
    assert valid.splits.tolist() == ["valid"] and "1 of 3 flowers" in valid.description
    paint(kaggle / "dataset/test/2/image_9.png", RED)
    apart = load(kaggle, tmp_path, splits=("train", "test"))
    assert colours(apart) == "grr" and not apart.images.flags.writeable
    assert apart.splits.tolist() == ["train", "train", "test"]


# --- what goes wrong ---


@pytest.mark.parametrize("made", [False, True])
def test_a_missing_or_empty_folder_says_what_to_do(tmp_path, made):
    folder = tmp_path / "flowers"
    if made:
        folder.mkdir()
        (folder / "notes.txt").write_text("no flower")
    with pytest.raises(FileNotFoundError, match=f"{folder}.*make data.*--data-dir"):
        load(folder, tmp_path)


def test_unreadable_files_are_skipped_and_named_in_one_warning_each_time(tmp_path):
    folder, whole = tmp_path / "flowers", io.BytesIO()
    paint(folder / "1.png", GREEN), paint(folder / "6.png", BLUE)
    (folder / "2.jpg").write_bytes(b"")
    (folder / "3.jpg").write_text("<html>not found</html>")
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    Image.fromarray(noise).save(whole, "JPEG")
    (folder / "4.jpg").write_bytes(whole.getvalue()[: len(whole.getvalue()) // 2])
    Image.new("1", (12_000, 12_000)).save(folder / "5.png")  # over Pillow's limit of pixels
    for _ in range(2):
        with pytest.warns() as caught:
            flowers = load(folder, tmp_path)
        (warning,) = caught
        assert "'2.jpg', '3.jpg', '4.jpg', '5.png'" in str(warning.message)
        assert warning.filename.endswith("flower_files.py")  # the caller of load_flowers
        assert colours(flowers) == "gb" and len(flowers.labels) == len(flowers.splits) == 2


def test_of_many_unreadable_files_ten_are_named_and_without_a_readable_one_it_is_an_error(tmp_path):
    folder = tmp_path / "flowers"
    paint(folder / "0.png")
    for number in range(1, 14):
        (folder / f"{number}.jpg").write_bytes(b"")
    with pytest.warns(UserWarning, match=r"'9.jpg', '10.jpg' and 3 more$"):
        load(folder, tmp_path)
    (folder / "0.png").unlink()
    with pytest.raises(FileNotFoundError, match=r"'1.jpg'"):
        load(folder, tmp_path)
    assert len(list((tmp_path / "cache").iterdir())) == 1  # not cached


@pytest.mark.skipif(os.name == "nt" or sys.platform == "darwin", reason="names must be Unicode")
def test_a_name_that_is_not_unicode_can_be_warned_of(tmp_path):
    paint(tmp_path / "flowers/a.png")
    Path(os.fsdecode(os.fsencode(tmp_path / "flowers") + b"/\xff.png")).write_bytes(b"")
    for _ in range(2):
        with pytest.warns(UserWarning, match="udcff") as caught:
            load(tmp_path / "flowers", tmp_path)
        str(caught[0].message).encode()


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"image_size": 7}, "image_size.*7"),
        ({"image_size": 64.5}, "image_size.*64.5"),
        ({"fit": "pad"}, "crop, stretch.*'pad'"),
        ({"painted": 0}, "painted.*0"),
        ({"seed": -1}, "seed.*-1"),
        ({"splits": ("train", "tset")}, "'tset'.*train, valid"),
        ({"splits": ()}, "splits.*train, valid"),
        ({"folder": ""}, "data_dir.*''"),
    ],
)
def test_a_bad_value_is_named_with_its_choices(kaggle, tmp_path, wrong, words):
    with pytest.raises(ValueError, match=words):
        load(**{"folder": kaggle, "tmp_path": tmp_path, **wrong})


# --- the fingerprint ---


def test_the_fingerprint_is_that_of_the_same_data_anywhere(kaggle, tmp_path):
    copy = tmp_path / "elsewhere/other name"
    shutil.copytree(kaggle, copy)
    for path in copy.rglob("*.png"):
        os.utime(path, (0, 0))
    first, second = load(kaggle, tmp_path), load(copy, tmp_path / "elsewhere")
    assert first.fingerprint == second.fingerprint
    assert len(first.fingerprint) == 16 and int(first.fingerprint, 16)


def test_other_data_has_another_fingerprint(kaggle, tmp_path):
    def fingerprint(**options):
        return load(kaggle, tmp_path, **options).fingerprint

    seen = [fingerprint(), fingerprint(image_size=24), fingerprint(fit="stretch")]
    seen += [fingerprint(splits=split) for split in ("train", "valid")]
    path = kaggle / "dataset/train/2/image_1.png"
    size = path.stat().st_size
    paint(path, BLUE)
    assert path.stat().st_size == size  # the same number, names and sizes of files
    seen.append(fingerprint())
    last = kaggle / "dataset/train/10/image_2.png"
    last.rename(kaggle / "dataset/valid/10/image_2.png")  # another split, the same order
    seen.append(fingerprint())
    assert len(set(seen)) == len(seen)


# --- painted flowers, the project's own data ---


@pytest.fixture
def no_data(tmp_path, monkeypatch):
    """A project without data, `tmp_path / "project"`."""
    monkeypatch.setattr(diffusion.data.flowers, "data_home", lambda: tmp_path / "project" / "data")


def test_painted_flowers_are_painted_once_for_each_count_size_and_seed(tmp_path, monkeypatch):
    images, labels = painting.paint_flowers(5, image_size=16)
    options = ({}, {"painted": 6}, {"seed": 1}, {"image_size": 17})
    for _ in range(2):
        each = [load("painted", tmp_path, **{"painted": 5, **o}) for o in options]
        assert len({flowers.fingerprint for flowers in each}) == 4
        np.testing.assert_array_equal(each[0].images, images)
        np.testing.assert_array_equal(each[0].labels, labels)
        monkeypatch.setattr(painting, "paint_flowers", None)  # fails if called again
    first = each[0]
    assert first.class_names == painting.SPECIES and first.name == "painted"
    assert first.labels.dtype == np.int64 and isinstance(first.images, np.memmap)
    assert first.description == "5 painted flowers, 16x16, seed 0"


@pytest.mark.parametrize("module", [painting, species])
def test_another_painter_paints_anew_but_comments_change_nothing(module, tmp_path, monkeypatch):
    first = load("painted", tmp_path, painted=1)
    source = Path(module.__file__).read_text()
    monkeypatch.setattr(module, "__file__", str(tmp_path / "copy.py"))
    for addition, same in (("# a comment", True), ("x = 1", False)):
        (tmp_path / "copy.py").write_text(f"{source}\n{addition}\n".replace("flower", "Flower", 1))
        other = load("painted", tmp_path, painted=1)
        assert (other.fingerprint == first.fingerprint) == same
    assert len(list((tmp_path / "cache").iterdir())) == 2


def test_without_a_folder_the_projects_data_comes_before_painted_flowers(no_data, tmp_path):
    assert load(None, tmp_path, painted=3).name == "painted"
    paint(tmp_path / "project/data/cache/stray.png")
    assert load(None, tmp_path, painted=3).name == "painted"
    paint(tmp_path / "project/data/flowers/dataset/train/1/a.png")
    flowers = load(None, tmp_path, painted=3)
    assert (flowers.name, len(flowers)) == ("flowers", 1)
    assert "from flowers, " in flowers.description
    assert load("painted", tmp_path, painted=3).name == "painted"


def test_painted_flowers_have_no_splits_and_their_cache_lies_in_the_project(no_data, tmp_path):
    with pytest.raises(ValueError, match=r"'train'.*painted has no splits"):
        load("painted", tmp_path, painted=3, splits=("train",))
    load("painted", tmp_path, painted=3, cache_dir=None)
    assert len(list((tmp_path / "project/data/cache").iterdir())) == 1


# --- the whole ---


@pytest.mark.slow
def test_importing_the_loader_imports_no_framework_and_of_the_library_its_own_wing():
    program = "from diffusion.data import load_flowers, painting; import sys; print(*sys.modules)"
    imported = run_python(program).split()
    assert not {"tensorflow", "keras", "jax"} & set(imported)
    ours = {".".join(name.split(".")[:2]) for name in imported if name.startswith("diffusion.")}
    assert ours == {"diffusion.data", "diffusion.support"}


@pytest.mark.slow
def test_the_real_flowers_come_whole_labelled_and_without_a_warning(real_flowers_dir, tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        flowers = load(real_flowers_dir, tmp_path, image_size=16)
    assert len(flowers) == 7370 and len(set(flowers.class_names)) == 102
    assert sorted(set(flowers.labels.tolist())) == list(range(102))
    assert flowers.class_names[flowers.labels[0]] == "pink primrose"
    assert flowers.splits.tolist() == ["train"] * 6552 + ["valid"] * 818
    assert flowers.name == "flowers102"
    assert flowers.description == "7,370 flowers from flowers102, 16x16, centre crop"
    paths = (real_flowers_dir / "dataset/train").rglob("*.jpg")
    path = sorted(paths, key=lambda p: (int(p.parent.name), p.name))[5000]
    np.testing.assert_array_equal(flowers.images[5000], read_image(path, 16))
