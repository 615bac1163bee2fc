"""Finding pictures: in every layout, leaving nothing out without a warning."""

import json
import os
import sys
import warnings

import pytest
from conftest import ROOT
from flower_files import ordinary_user
from scipy.io import savemat

from diffusion.data.folders import check_records, find_pictures


def touch(folder, *names):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    return folder


def found(folder, **options):
    """Each picture as "split class file"."""
    _, pictures, names = find_pictures(folder, **options)
    return [f"{p.split} {names[p.class_id]} {p.path.stem}".strip() for p in pictures]


@pytest.fixture
def oxford(tmp_path):
    root = touch(tmp_path / "oxford", *(f"jpg/image_{number:05}.jpg" for number in (1, 2, 3)))
    savemat(root / "imagelabels.mat", {"labels": [[77, 1, 77]]})
    savemat(root / "setid.mat", {"trnid": [[3]], "valid": [[1]], "tstid": [[2]]})
    return root


# --- layouts ---


@pytest.mark.parametrize("below", ["", "dataset", ".."])
def test_kaggles_layout_is_found_and_its_unlabelled_pictures_come_last(kaggle, below):
    expected = ["train 2 image_1", "train globe thistle image_2", "valid globe thistle image_3"]
    assert found(kaggle / below) == expected
    touch(kaggle, "dataset/test/image_0.png")
    assert found(kaggle / below) == [*expected, "test unknown image_0"]
    assert list(find_pictures(kaggle).class_names) == ["2", "10", None]


@pytest.mark.parametrize("below", ["", "jpg", ".."])
def test_oxfords_layout_is_labelled_by_its_mat_files(oxford, below):
    passion = ["train passion flower image_00003", "valid passion flower image_00001"]
    expected = [*passion, "test pink primrose image_00002"]
    assert found(oxford / below) == expected
    for path in (oxford / "jpg").iterdir():  # they may lie beside the .mat files
        path.rename(oxford / path.name)
    assert found(oxford) == expected


def test_in_any_other_tree_the_parent_folder_is_the_class(tmp_path):
    touch(tmp_path / "garden", "south/tulip/a.png", "rose/b.JPG", "c.webp")
    assert found(tmp_path / "garden") == ["garden c", "rose b", "tulip a"]


def test_the_102_classes_have_their_names_without_a_list_of_names(tmp_path):
    touch(tmp_path, *(f"train/{number}/a.png" for number in range(1, 103)))
    names = json.loads((ROOT / "diffusion/data/cat_to_name.json").read_text())
    in_order = [(str(number), names[str(number)]) for number in range(1, 103)]
    assert list(find_pictures(tmp_path).class_names.items()) == in_order


def test_classes_and_files_come_in_natural_order(tmp_path):
    touch(tmp_path, *(f"train/{name}.png" for name in ("10/9", "9/10", "9/9", "2/1", "10/10")))
    assert found(tmp_path) == [f"train {name}" for name in ("2 1", "9 9", "9 10", "10 9", "10 10")]


# --- what is not a picture, or not a split ---


def test_hidden_files_and_folders_are_not_flowers(kaggle):
    touch(kaggle, "dataset/train/2/._image_1.png", "dataset/train/.ipynb_checkpoints/a.png")
    touch(kaggle, "__MACOSX/train/2/image_1.png")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert len(found(kaggle)) == 3


def test_strange_names_are_read_but_not_folders_named_like_pictures(tmp_path):
    names = {"with space", "new\nline", "花 ❀", "quote'\"", "folder.jpg"}
    touch(tmp_path, *(f"{name}/{name}.png" for name in names))
    (tmp_path / "empty.jpg").mkdir()
    assert set(find_pictures(tmp_path).class_names) == names


def test_loops_of_links_are_walked_once(kaggle):
    try:
        (kaggle / "dataset/train/2/up").symlink_to(kaggle, target_is_directory=True)
        (kaggle / "loop").symlink_to(kaggle / "loop")
        (kaggle / "dataset/train/2/dangling.jpg").symlink_to(kaggle / "nowhere.jpg")
    except OSError as error:
        pytest.skip(f"no symbolic links here: {error}")
    assert len(found(kaggle)) == 3


def test_folders_to_skip_are_skipped_unless_asked_for_themselves(kaggle):
    touch(kaggle, "dataset/train/cache/stray.png")
    cache = kaggle / "dataset/train/cache"
    assert len(found(kaggle, skip=[cache])) == 3
    assert found(cache, skip=[cache]) == ["cache stray"]


def test_of_two_data_sets_one_is_used_and_the_other_named(tmp_path):
    touch(tmp_path, "b/train/1/x.png", "a/train/1/y.png")
    with pytest.warns(UserWarning, match=r"using .*a, not .*b"):
        assert found(tmp_path) == ["train 1 y"]


@pytest.mark.parametrize("name", ["train", "valid", "test"])
@pytest.mark.parametrize("beside", [("roses/1.jpg", "tulips/2.jpg"), ("1.jpg", "2.jpg")])
@pytest.mark.parametrize("above", ["", "more/"])
def test_a_class_called_like_a_split_hides_no_other_class(tmp_path, name, beside, above):
    touch(tmp_path, *beside, f"{above}{name}/9.jpg")
    with pytest.warns(UserWarning, match=name):
        pictures = found(tmp_path)
    assert {text.split()[-1] for text in pictures} == {"1", "2", "9"}
    assert f"{name} 9" in pictures


def test_two_splits_with_other_pictures_beside_them_are_no_splits(tmp_path):
    touch(tmp_path, "train/1/a.jpg", "valid/1/b.jpg", "roses/c.jpg")
    with pytest.warns(UserWarning, match=r"train.*valid"):
        assert found(tmp_path) == ["1 a", "1 b", "roses c"]


def test_pictures_outside_the_data_set_are_counted_in_the_warning(kaggle, tmp_path):
    touch(tmp_path, "holiday/a.jpg", "holiday/b.jpg")
    with pytest.warns(UserWarning, match="not the other 2 under"):
        assert len(found(tmp_path)) == 3


# --- what cannot be read ---


@pytest.mark.skipif(os.name == "nt", reason="no permission bits")
@pytest.mark.parametrize("mode", [0o000, 0o444])
def test_unreadable_folders_are_named_in_one_warning_and_stop_nothing(mode):
    with ordinary_user() as folder:
        touch(folder, *(f"{name}/{name}.jpg" for name in ("rose", "tulip", "lily")))
        for name in ("rose", "lily"):
            (folder / name).chmod(mode)
        with pytest.warns() as caught:
            assert found(folder) == ["tulip tulip"]
        for name in ("rose", "lily"):
            (folder / name).chmod(0o755)
    assert [("rose" in str(w.message), "lily" in str(w.message)) for w in caught] == [(True, True)]


def assert_refused_by_loader_and_check(folder, words):
    for read in (find_pictures, check_records):
        with pytest.raises(ValueError, match=words):
            read(folder)


@pytest.mark.parametrize("content", ["{", "[]", "3", "[" * 100_000])
def test_a_damaged_list_of_names_is_refused_by_the_loader_and_by_the_check(kaggle, content):
    (kaggle / "cat_to_name.json").write_text(content)
    assert_refused_by_loader_and_check(kaggle / "dataset", r"cat_to_name\.json")


@pytest.mark.parametrize("file", ["imagelabels.mat", "setid.mat"])
def test_damaged_mat_files_are_refused_by_the_loader_and_by_the_check(oxford, monkeypatch, file):
    check_records(oxford)
    (oxford / file).write_bytes(b"MATLAB 5.0 but no")
    assert_refused_by_loader_and_check(oxford, "oxford")
    monkeypatch.setitem(sys.modules, "scipy.io", None)
    check_records(oxford)  # without scipy, nothing can be said
