"""The loader: any layout, each picture decoded once, a cache that is whole or not there."""

import io
import json
import os
import platform
import signal
import subprocess
import sys
import time
import types
import warnings
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.io import savemat

import diffusion.data.flowers
from diffusion.data.flowers import load_flowers, read_image

ROOT = Path(__file__).resolve().parents[2]
SHARED = ROOT.parent / "shared"
RED, GREEN, BLUE = (255, 0, 0), (0, 255, 0), (0, 0, 255)


def paint(path, colour=RED, size=(40, 30), mode="RGB", **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, colour).convert(mode).save(path, **options)
    return path


def load(folder, tmp_path, image_size=16, **options):
    options = {"cache_dir": tmp_path / "cache", "progress": False, **options}
    return load_flowers(folder, image_size, **options)


def colours(flowers):
    """The red, green or blue of each image, as a letter."""
    return "".join("rgb"[i] for i in flowers.images.mean(axis=(1, 2)).argmax(axis=1))


@pytest.fixture
def kaggle(tmp_path):
    """Kaggle's layout, three pictures, with a name for one of the two classes."""
    root = tmp_path / "my flowers"
    paint(root / "dataset/train/10/image_2.png", RED)
    paint(root / "dataset/train/2/image_1.png", GREEN)
    paint(root / "dataset/valid/10/image_3.png", BLUE)
    (root / "cat_to_name.json").write_text(json.dumps({"10": "globe thistle"}))
    return root


# --- finding ---


@pytest.mark.parametrize("below", ["", "dataset", ".."])
def test_kaggles_layout_is_found_from_its_folder_and_from_above(kaggle, tmp_path, below):
    flowers = load(kaggle / below, tmp_path)
    assert flowers.class_names == ("2", "globe thistle")
    assert flowers.labels.tolist() == [0, 1, 1] and flowers.labels.dtype == np.int64
    assert flowers.splits.tolist() == ["train", "train", "valid"]
    assert colours(flowers) == "grb"
    assert flowers.name == "my-flowers"
    assert len(flowers) == 3 and flowers.images.shape == (3, 16, 16, 3)


def test_pictures_that_kaggle_leaves_unlabelled_come_last_as_unknown(kaggle, tmp_path):
    paint(kaggle / "dataset/test/image_9.png", BLUE)
    flowers = load(kaggle, tmp_path)
    assert flowers.class_names == ("2", "globe thistle", "unknown")
    assert flowers.labels.tolist() == [0, 1, 1, 2]
    assert flowers.splits.tolist()[-1] == "test"


@pytest.mark.parametrize(("jpg", "below"), [("jpg", ""), ("jpg", "jpg"), ("jpg", ".."), ("", "")])
def test_oxfords_own_layout_is_labelled_by_its_mat_files(tmp_path, jpg, below):
    root = tmp_path / "oxford"
    for number, colour in ((1, RED), (2, GREEN), (3, BLUE)):
        paint(root / jpg / f"image_{number:05}.jpg", colour)
    savemat(root / "imagelabels.mat", {"labels": [[77, 1, 77]]})
    savemat(root / "setid.mat", {"trnid": [[3]], "valid": [[1]], "tstid": [[2]]})
    flowers = load(root / below, tmp_path)
    assert flowers.splits.tolist() == ["train", "valid", "test"]
    assert colours(flowers) == "brg"
    assert flowers.class_names == ("pink primrose", "passion flower")
    assert flowers.labels.tolist() == [1, 1, 0]
    assert flowers.name == "oxford"


def test_damaged_mat_files_are_an_error_that_names_the_folder(tmp_path):
    paint(tmp_path / "oxford/jpg/image_00001.jpg")
    (tmp_path / "oxford/imagelabels.mat").write_bytes(b"MATLAB 5.0 but no")
    with pytest.raises(ValueError, match=r"cannot read the \.mat files in .*oxford.*make data"):
        load(tmp_path / "oxford", tmp_path)


def test_any_tree_takes_its_classes_from_the_parent_folders(tmp_path):
    paint(tmp_path / "garden/south/tulip/a.png", RED)
    paint(tmp_path / "garden/rose/b.jpg", GREEN)
    flowers = load(tmp_path / "garden", tmp_path)
    assert flowers.class_names == ("rose", "tulip")
    assert colours(flowers) == "gr" and flowers.splits.tolist() == ["", ""]


def test_a_folder_of_pictures_alone_is_one_class(tmp_path):
    paint(tmp_path / "roses/a.png"), paint(tmp_path / "roses/b.PNG")
    flowers = load(tmp_path / "roses", tmp_path)
    assert flowers.class_names == ("roses",) and flowers.labels.tolist() == [0, 0]


def test_the_102_classes_have_their_names_without_a_list_of_names(tmp_path):
    for number in range(1, 103):
        paint(tmp_path / f"flowers/train/{number}/a.png", size=(8, 8))
    flowers = load(tmp_path / "flowers", tmp_path, image_size=8)
    names = json.loads((ROOT / "diffusion/cat_to_name.json").read_text())
    assert flowers.class_names == tuple(names[str(number)] for number in range(1, 103))


def test_classes_and_files_come_in_natural_order_whatever_order_they_were_made_in(tmp_path):
    for name in ("10/9", "9/10", "9/9", "2/1", "10/10"):
        paint(tmp_path / f"flowers/train/{name}.png", (int(name.split("/")[1]), 0, 0))
    flowers = load(tmp_path / "flowers", tmp_path)
    assert flowers.class_names == ("2", "9", "10")
    assert flowers.images[:, 0, 0, 0].tolist() == [1, 9, 10, 9, 10]


def test_of_two_data_sets_one_is_used_and_the_other_named(tmp_path):
    paint(tmp_path / "all/b/train/1/x.png"), paint(tmp_path / "all/a/train/1/x.png", GREEN)
    with pytest.warns(UserWarning, match=r"several data sets: using .*a, not .*b"):
        assert colours(load(tmp_path / "all", tmp_path)) == "g"


def test_hidden_files_and_folders_are_not_flowers(kaggle, tmp_path):
    (kaggle / "dataset/train/2/._image_1.png").write_bytes(b"\0\5\26\7")
    paint(kaggle / "dataset/train/2/.image_1.png")
    paint(kaggle / "dataset/train/.ipynb_checkpoints/image_1-checkpoint.png")
    paint(kaggle / "__MACOSX/train/2/image_1.png")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert len(load(kaggle, tmp_path)) == 3


def test_strange_names_and_a_folder_named_like_a_picture_are_read(tmp_path):
    for name in ("with space", "new\nline", "花 ❀", "quote'\"", "folder.jpg"):
        paint(tmp_path / f"flowers/{name}/{name}.png")
    (tmp_path / "flowers/empty.jpg").mkdir()
    flowers = load(tmp_path / "flowers", tmp_path)
    assert set(flowers.class_names) == {"with space", "new\nline", "花 ❀", "quote'\"", "folder.jpg"}


@pytest.mark.skipif(os.name == "nt" or sys.platform == "darwin", reason="names must be Unicode")
def test_a_name_that_is_no_unicode_is_read_and_can_be_warned_of(tmp_path):
    paint(tmp_path / "flowers/a.png")
    Path(os.fsdecode(os.fsencode(tmp_path / "flowers") + b"/\xff.png")).write_bytes(b"")
    with pytest.warns(UserWarning, match="udcff") as caught:
        load(tmp_path / "flowers", tmp_path)
    str(caught[0].message).encode()


def test_loops_of_links_are_walked_once(kaggle, tmp_path):
    try:
        (kaggle / "dataset/train/2/up").symlink_to(kaggle, target_is_directory=True)
        (kaggle / "loop").symlink_to(kaggle / "loop")
        (kaggle / "dataset/train/2/dangling.jpg").symlink_to(kaggle / "nowhere.jpg")
    except OSError as error:
        pytest.skip(f"no symbolic links here: {error}")
    assert len(load(kaggle, tmp_path)) == 3


def test_the_cache_within_the_data_changes_nothing(kaggle, tmp_path):
    cache = kaggle / "dataset/train/cache"
    first = load(kaggle, tmp_path, cache_dir=cache)
    paint(cache / "stray.png")
    again = load(kaggle, tmp_path, cache_dir=cache)
    assert len(first) == len(again) == 3


def test_a_cache_beside_the_pictures_hides_none_of_them(kaggle, tmp_path):
    assert len(load(kaggle, tmp_path, cache_dir=kaggle)) == 3
    assert len(load(kaggle, tmp_path, cache_dir=kaggle)) == 3


def test_a_folder_may_be_written_from_the_home_folder(kaggle, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    assert len(load("~/my flowers", tmp_path)) == 3


# --- what goes wrong ---


@pytest.mark.parametrize("made", [False, True])
def test_a_missing_or_empty_folder_says_what_to_do(tmp_path, made):
    folder = tmp_path / "flowers"
    if made:
        folder.mkdir()
        (folder / "notes.txt").write_text("no flower")
    with pytest.raises(FileNotFoundError) as caught:
        load(folder, tmp_path)
    assert str(caught.value) == f"no images under {folder}: run 'make data', or pass --data-dir"


def spoil(folder):
    """Four files no decoder can read, beside two good ones."""
    paint(folder / "1.png", GREEN), paint(folder / "6.png", BLUE)
    (folder / "2.jpg").write_bytes(b"")
    (folder / "3.jpg").write_text("<html>not found</html>")
    whole = io.BytesIO()
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    Image.fromarray(noise).save(whole, "JPEG")
    (folder / "4.jpg").write_bytes(whole.getvalue()[: len(whole.getvalue()) // 2])
    Image.new("1", (12_000, 12_000)).save(folder / "5.png")  # over Pillow's limit of pixels


def test_unreadable_files_are_skipped_and_named_in_one_warning_each_time(tmp_path):
    (tmp_path / "flowers").mkdir()
    spoil(tmp_path / "flowers")
    for _ in range(2):
        with pytest.warns() as caught:
            flowers = load(tmp_path / "flowers", tmp_path)
        (warning,) = caught
        assert "'2.jpg', '3.jpg', '4.jpg', '5.png'" in str(warning.message)
        assert warning.filename == __file__
        assert colours(flowers) == "gb" and len(flowers.labels) == len(flowers.splits) == 2


def test_of_many_unreadable_files_ten_are_named(tmp_path):
    paint(tmp_path / "flowers/0.png")
    for number in range(1, 14):
        (tmp_path / f"flowers/{number}.jpg").write_bytes(b"")
    with pytest.warns(UserWarning, match=r"'9.jpg', '10.jpg' and 3 more$"):
        load(tmp_path / "flowers", tmp_path)


def test_where_nothing_can_be_read_the_error_says_so_and_nothing_is_cached(tmp_path):
    (tmp_path / "flowers").mkdir()
    (tmp_path / "flowers/a.jpg").write_bytes(b"")
    with pytest.raises(FileNotFoundError, match=r"none of the 1 images .*'a.jpg'.*make data"):
        load(tmp_path / "flowers", tmp_path)
    assert list((tmp_path / "cache").iterdir()) == []


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root reads all")
def test_a_file_without_permission_is_skipped_and_named(kaggle, tmp_path):
    (kaggle / "dataset/train/2/image_1.png").chmod(0)
    with pytest.warns(UserWarning, match="image_1.png"):
        assert len(load(kaggle, tmp_path)) == 2


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"image_size": 7}, "image_size must be a whole number of at least 8, got 7"),
        ({"image_size": 64.5}, "image_size must be a whole number of at least 8, got 64.5"),
        ({"fit": "pad"}, "fit must be one of crop, stretch, got 'pad'"),
        ({"painted": 0}, "painted must be a whole number of at least 1, got 0"),
        ({"splits": ("train", "tset")}, "unknown split 'tset': choices are train, valid"),
    ],
)
def test_a_bad_value_is_named_with_its_choices(kaggle, tmp_path, wrong, message):
    with pytest.raises(ValueError) as caught:
        load(kaggle, tmp_path, **wrong)
    assert str(caught.value) == message


def test_a_broken_list_of_names_is_named(kaggle, tmp_path):
    (kaggle / "cat_to_name.json").write_text("{")
    with pytest.raises(ValueError, match=r"cat_to_name\.json is not a JSON object of names"):
        load(kaggle, tmp_path)


# --- pictures ---


def stripes(width=400, height=200):
    """Red, green and blue thirds, side by side."""
    picture = np.zeros((height, width, 3), dtype=np.uint8)
    for i in range(3):
        picture[:, width * i // 3 : width * (i + 1) // 3, i] = 255
    return Image.fromarray(picture)


def test_crop_keeps_the_middle_in_its_proportions_and_stretch_keeps_all(tmp_path):
    stripes().save(tmp_path / "wide.png")
    crop = read_image(tmp_path / "wide.png", 60, "crop")
    middle = np.asarray(stripes())[:, 100:300].reshape(200, 200, 3)
    assert crop.dtype == np.uint8 and crop.shape == (60, 60, 3)
    for column in (3, 15, 30, 45, 57):  # stretched, the fourths would be red and blue
        np.testing.assert_array_equal(crop[30, column], middle[100, int((column + 0.5) / 0.3)])
    stretched = read_image(tmp_path / "wide.png", 60, "stretch")
    for column, colour in ((5, RED), (30, GREEN), (55, BLUE)):
        np.testing.assert_array_equal(stretched[30, column], colour)


@pytest.mark.parametrize("fit", ["crop", "stretch"])
def test_shrinking_averages_fine_detail_instead_of_picking_from_it(tmp_path, fit):
    checks = np.indices((256, 256)).sum(axis=0) % 2 * 255
    Image.fromarray(checks.astype(np.uint8)).save(tmp_path / "checks.png")
    assert np.abs(read_image(tmp_path / "checks.png", 20, fit).astype(int) - 127).max() < 12


def test_a_picture_is_turned_upright(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was held on its side
    stripes(300, 300).save(tmp_path / "turned.jpg", exif=exif, quality=95)
    upright = read_image(tmp_path / "turned.jpg", 30).astype(int)
    assert [upright[row, 15].argmax() for row in (4, 15, 25)] == [0, 1, 2]


@pytest.mark.parametrize(
    ("mode", "name"),
    [("L", "a.jpg"), ("L", "a.png"), ("P", "a.gif"), ("CMYK", "a.jpg"), ("1", "a.png")],
)
def test_every_mode_becomes_rgb(tmp_path, mode, name):
    white = read_image(paint(tmp_path / name, (255, 255, 255), mode=mode), 8)
    black = read_image(paint(tmp_path / name, (0, 0, 0), mode=mode), 8)
    assert white.shape == (8, 8, 3) and white.min() > 250 and black.max() < 5


def test_cmyk_keeps_its_colours(tmp_path):
    picture = read_image(paint(tmp_path / "a.jpg", RED, mode="CMYK", quality=95), 8)
    assert picture[..., 0].min() > 240 and picture[..., 1:].max() < 15


def test_sixteen_bits_are_scaled_to_eight_instead_of_cut_off(tmp_path):
    levels = np.full((16, 16), 32768, dtype=np.uint16)
    Image.fromarray(levels).save(tmp_path / "a.png")
    np.testing.assert_array_equal(read_image(tmp_path / "a.png", 8), 128)


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_what_is_transparent_becomes_white(tmp_path, mode):
    picture = Image.new("RGBA", (20, 20), (0, 0, 0, 0))
    if mode == "P":
        picture = Image.new("P", (20, 20), 0)
        picture.putpalette([0, 0, 0] * 256)
        picture.save(tmp_path / "a.png", transparency=0)
    else:
        picture.convert(mode).save(tmp_path / "a.png")
    np.testing.assert_array_equal(read_image(tmp_path / "a.png", 8), 255)


def test_half_transparent_black_over_white_is_grey(tmp_path):
    Image.new("RGBA", (20, 20), (0, 0, 0, 128)).save(tmp_path / "a.png")
    np.testing.assert_array_equal(read_image(tmp_path / "a.png", 8), 127)


@pytest.mark.parametrize("fit", ["crop", "stretch"])
def test_decoding_large_jpegs_at_a_fraction_loses_nothing_visible(monkeypatch, fit):
    folder = SHARED / "flowers102-originals"
    if not folder.is_dir():
        pytest.skip(f"the full-size flowers are not at {folder}")
    for path in sorted(folder.rglob("*.jpg"))[::9]:
        quick = read_image(path, 64, fit).astype(float)
        with monkeypatch.context() as patch:
            patch.setattr("PIL.JpegImagePlugin.JpegImageFile.draft", lambda *_: None)
            full = read_image(path, 64, fit).astype(float)
        assert np.abs(quick - full).mean() < 3, path


# --- the cache ---


@pytest.fixture
def decoded(monkeypatch):
    """The names of the files decoded from here on."""
    names, read = [], diffusion.data.flowers.read_image

    def noted(path, *arguments):
        names.append(Path(path).name)
        return read(path, *arguments)

    monkeypatch.setattr(diffusion.data.flowers, "read_image", noted)
    return names


def test_the_second_load_decodes_nothing_and_gives_the_same(kaggle, tmp_path, decoded):
    first = load(kaggle, tmp_path)
    assert len(decoded) == 3
    decoded.clear()
    again = load(kaggle, tmp_path)
    assert decoded == []
    np.testing.assert_array_equal(first.images, again.images)
    np.testing.assert_array_equal(first.labels, again.labels)
    assert first.class_names == again.class_names and first.description == again.description


def test_the_array_is_mapped_and_read_only(kaggle, tmp_path):
    for flowers in (load(kaggle, tmp_path), load(kaggle, tmp_path, splits=("train",))):
        assert isinstance(flowers.images, np.memmap) and flowers.images.dtype == np.uint8
        with pytest.raises(ValueError, match="read-only"):
            flowers.images[0] = 0


def test_the_cache_follows_everything_it_depends_on(kaggle, tmp_path, decoded):
    def decodes(**options):
        decoded.clear()
        load(kaggle, tmp_path, **options)
        return len(decoded)

    path = kaggle / "dataset/train/2/image_1.png"
    assert decodes() == 3
    assert decodes(image_size=24) == 3 and decodes(fit="stretch") == 3
    assert decodes() == decodes(image_size=24) == decodes(fit="stretch") == 0
    os.utime(path, ns=(1, path.stat().st_mtime_ns + 1))
    assert decodes() == 3
    stat = path.stat()
    path.write_bytes(path.read_bytes() + b"\0")
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert decodes() == 3
    path.rename(path.with_name("image_7.png"))
    assert decodes() == 3
    path.with_name("image_7.png").unlink()
    assert decodes() == 2
    assert decodes() == 0


def test_a_new_format_leaves_old_entries_alone(kaggle, tmp_path, decoded, monkeypatch):
    load(kaggle, tmp_path)
    monkeypatch.setattr(diffusion.data.flowers, "FORMAT", diffusion.data.flowers.FORMAT + 1)
    load(kaggle, tmp_path)
    assert len(decoded) == 6


@pytest.mark.parametrize("damage", ["short", "no notes", "torn notes"])
def test_a_damaged_entry_is_made_again(kaggle, tmp_path, damage):
    load(kaggle, tmp_path)
    (entry,) = (tmp_path / "cache").iterdir()
    if damage == "short":
        (entry / "images.uint8").write_bytes(b"\0" * 100)
    elif damage == "no notes":
        (entry / "notes.json").unlink()
    else:
        (entry / "notes.json").write_text('{"count": ')
    assert colours(load(kaggle, tmp_path)) == "grb"
    assert list((tmp_path / "cache").iterdir()) == [entry]


def test_a_failure_half_way_leaves_nothing_behind(kaggle, tmp_path, monkeypatch):
    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(diffusion.data.flowers, "read_image", interrupt)
    with pytest.raises(KeyboardInterrupt):
        load(kaggle, tmp_path)
    assert list((tmp_path / "cache").iterdir()) == []


def test_a_cache_that_cannot_be_made_is_one_line_that_says_what_to_do(kaggle, tmp_path):
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(OSError) as caught:
        load(kaggle, tmp_path, cache_dir=tmp_path / "file/cache")
    message = str(caught.value)
    assert f"cannot write the cache of images in {tmp_path / 'file/cache'}" in message
    assert "pass cache_dir" in message and "\n" not in message


def test_a_full_disk_is_found_before_anything_is_decoded(kaggle, tmp_path, decoded, monkeypatch):
    monkeypatch.setattr("shutil.disk_usage", lambda _: types.SimpleNamespace(free=1000))
    with pytest.raises(OSError, match=r"cannot write the cache .*free.*pass cache_dir"):
        load(kaggle, tmp_path)
    assert decoded == [] and list((tmp_path / "cache").iterdir()) == []


LOAD_THAT_WAITS = """
import os, sys, time
from diffusion.data import flowers as module
read = module.read_image
def waiting(path, *arguments):
    pixels = read(path, *arguments)
    os.write(1, b"decoded\\n")
    while not os.path.exists(sys.argv[3]):
        time.sleep(0.01)
    return pixels
module.read_image = waiting
flowers = module.load_flowers(sys.argv[1], 16, cache_dir=sys.argv[2], progress=False)
print("sum", int(flowers.images.astype(int).sum()))
"""


def start_load_that_waits(folder, tmp_path):
    """A process in the midst of decoding: it goes on once `tmp_path / "go"` is there."""
    arguments = [sys.executable, "-c", LOAD_THAT_WAITS, folder, tmp_path / "cache", tmp_path / "go"]
    process = subprocess.Popen(arguments, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "decoded\n"
    return process


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="no SIGKILL here")
def test_a_load_killed_half_way_leaves_nothing_that_is_taken_for_finished(tmp_path):
    for number in range(40):
        paint(tmp_path / f"flowers/{number}.png", (number, 0, 0))
    process = start_load_that_waits(tmp_path / "flowers", tmp_path)
    (abandoned,) = (tmp_path / "cache").iterdir()
    process.kill()
    process.communicate()
    assert abandoned.exists()  # the kill left it: what follows has something to get wrong
    flowers = load(tmp_path / "flowers", tmp_path)
    assert flowers.images[:, 0, 0, 0].tolist() == list(range(40))
    (entry,) = (tmp_path / "cache").iterdir()
    assert entry != abandoned


def test_two_loads_at_once_both_succeed(tmp_path):
    for number in range(1, 21):
        paint(tmp_path / f"flowers/{number}.png", (number, 0, 0))
    both = [start_load_that_waits(tmp_path / "flowers", tmp_path) for _ in range(2)]
    assert len(list((tmp_path / "cache").iterdir())) == 2
    (tmp_path / "go").touch()
    lines = [process.communicate()[0].splitlines()[-1] for process in both]
    assert lines == [f"sum {210 * 16 * 16}"] * 2
    assert [process.returncode for process in both] == [0, 0]
    assert len(list((tmp_path / "cache").iterdir())) == 1


def test_what_others_are_still_making_is_left_alone_for_a_day(kaggle, tmp_path):
    fresh = tmp_path / f"cache/.building-{os.getpid()}-0-{platform.node()}"
    elsewhere = tmp_path / "cache/.building-99999999-0-another.machine"
    old = tmp_path / "cache/.building-1-1-another.machine"
    for folder in (fresh, elsewhere, old):
        folder.mkdir(parents=True)
    os.utime(old, (0, time.time() - 2 * 24 * 3600))
    load(kaggle, tmp_path)
    assert fresh.exists() and elsewhere.exists() and not old.exists()


# --- splits, painted flowers, the project's own data ---


def test_splits_select_rows_and_keep_labels_comparable(kaggle, tmp_path, decoded):
    everything = load(kaggle, tmp_path)
    decoded.clear()
    valid = load(kaggle, tmp_path, splits=("valid",))
    assert decoded == []  # one cache serves all selections
    assert valid.class_names == everything.class_names
    assert colours(valid) == "b" and valid.labels.tolist() == [1]
    assert valid.splits.tolist() == ["valid"] and "1 of 3 flowers" in valid.description
    paint(kaggle / "dataset/test/2/image_9.png", RED)
    apart = load(kaggle, tmp_path, splits=("train", "test"))
    assert colours(apart) == "grr" and not apart.images.flags.writeable
    assert apart.splits.tolist() == ["train", "train", "test"]


@pytest.fixture
def painter(tmp_path, monkeypatch):
    """A stand-in for the painter, which counts how often it paints, and for its table."""
    module = types.ModuleType("diffusion.data.painting")
    module.calls = []

    def paint_flowers(count, image_size=64, seed=0, progress=False, out=None):
        module.calls.append((count, image_size, seed))
        rng = np.random.default_rng(seed)
        images = rng.integers(0, 256, (count, image_size, image_size, 3), dtype=np.uint8)
        if out is not None:
            out[:] = images
        return images, rng.integers(0, 2, count)

    module.paint_flowers, module.SPECIES = paint_flowers, ("daisy", "poppy")
    module.__file__ = str(tmp_path / "synthetic.py")
    Path(module.__file__).write_text("1")
    (tmp_path / "species.py").write_text("1")
    monkeypatch.setattr("diffusion.data.species.__file__", str(tmp_path / "species.py"))
    monkeypatch.setitem(sys.modules, "diffusion.data.painting", module)
    monkeypatch.setattr("diffusion.data.painting", module, raising=False)
    monkeypatch.setattr(diffusion.data.flowers, "data_home", lambda: tmp_path / "project" / "data")
    return module


def test_painted_flowers_are_painted_once_for_each_count_size_seed_and_painter(painter, tmp_path):
    first = load("painted", tmp_path, painted=5)
    again = load("painted", tmp_path, painted=5)
    assert painter.calls == [(5, 16, 0)]
    np.testing.assert_array_equal(first.images, painter.paint_flowers(5, 16)[0])
    np.testing.assert_array_equal(first.labels, painter.paint_flowers(5, 16)[1])
    np.testing.assert_array_equal(first.labels, again.labels)
    assert first.class_names == ("daisy", "poppy") and first.name == "painted"
    assert first.labels.dtype == np.int64 and isinstance(first.images, np.memmap)
    assert first.description == "5 painted flowers, 16x16, seed 0"
    painter.calls.clear()
    for options in ({"painted": 6}, {"painted": 5, "seed": 1}, {"painted": 5, "image_size": 8}):
        load("painted", tmp_path, **options)
    for source in (Path(painter.__file__), tmp_path / "species.py"):
        source.write_text("2")
        load("painted", tmp_path, painted=5)
    assert len(painter.calls) == 5


def test_without_a_folder_the_projects_data_comes_before_painted_flowers(painter, tmp_path):
    assert load(None, tmp_path, painted=3).name == "painted"
    paint(tmp_path / "project/data/cache/stray.png")
    assert load(None, tmp_path, painted=3).name == "painted"
    paint(tmp_path / "project/data/flowers/dataset/train/1/a.png")
    flowers = load(None, tmp_path, painted=3)
    assert (flowers.name, len(flowers)) == ("flowers", 1)
    assert "from flowers, " in flowers.description
    assert load("painted", tmp_path, painted=3).name == "painted"


def test_the_cache_lies_in_the_project_by_default(painter, tmp_path):
    load("painted", tmp_path, painted=3, cache_dir=None)
    assert len(list((tmp_path / "project/data/cache").iterdir())) == 1


def test_painted_flowers_have_no_splits_to_choose_from(painter, tmp_path):
    with pytest.raises(ValueError, match=r"unknown split 'train': .*painted has no splits"):
        load("painted", tmp_path, painted=3, splits=("train",))


# --- the whole ---


def test_importing_the_loader_imports_no_tensorflow_and_of_the_library_only_its_own_wing():
    code = (
        "import sys, diffusion.data.flowers; print(*(m for m in sys.modules "
        "if m.split('.')[0] in ('tensorflow', 'keras', 'jax') or m.startswith('diffusion.')))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    wing = {
        "diffusion.data.flowers",
        "diffusion.data.cache",
        "diffusion.support.validation",
        "diffusion.data.folders",
    }
    assert set(done.stdout.split()) == wing, done.stderr


def test_the_real_flowers_come_whole_labelled_and_without_a_warning(tmp_path):
    folder = SHARED / "flowers102"
    if not folder.is_dir():
        pytest.skip(f"the real flowers are not at {folder}")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        flowers = load(folder, tmp_path, image_size=16)
    assert len(flowers) == 7370 and len(set(flowers.class_names)) == 102
    assert sorted(set(flowers.labels.tolist())) == list(range(102))
    assert flowers.class_names[flowers.labels[0]] == "pink primrose"
    assert flowers.splits.tolist() == ["train"] * 6552 + ["valid"] * 818
    assert flowers.name == "flowers102"
    assert flowers.description == "7,370 flowers from flowers102, 16x16, centre crop"
    row = 5000
    path = sorted(  # the picture at this row, found another way
        (folder / "dataset/train").rglob("*.jpg"), key=lambda p: (int(p.parent.name), p.name)
    )[row]
    np.testing.assert_array_equal(flowers.images[row], read_image(path, 16))
