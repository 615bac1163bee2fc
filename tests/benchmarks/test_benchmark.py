"""The benchmark measures what it reports, and names mistakes. No timings are asserted here."""

import json

import keras
import numpy as np
import pytest
from conftest import ON_TENSORFLOW
from PIL import Image
from processes import python

from benchmarks import benchmark as benchmark_script
from benchmarks import cost_growth, growth, machine, measures, rows
from diffusion.training.config import get_preset

needs_reference = pytest.mark.skipif(
    not ON_TENSORFLOW, reason="the reference is written in TensorFlow"
)
HERE = keras.backend.backend()
TARGETS = {name: row.target for name, row in rows.ROWS.items() if name != "gpu"}


def run(folder, module, *options, backend=HERE):
    """Run a benchmark on the CPU; return its report and what it prints."""
    options = [f"benchmarks.{module}", "--quick", *options, "--json", folder / "report.json"]
    printed = python("-m", *options, KERAS_BACKEND=backend, CUDA_VISIBLE_DEVICES="")
    text = (folder / "report.json").read_text()
    return json.loads(text, parse_constant=pytest.fail), printed  # NaN and Infinity are no JSON


@pytest.fixture(scope="module")
def quick(tmp_path_factory):
    """A quick run of all rows: its folder, report and printed table."""
    folder = tmp_path_factory.mktemp("benchmark")
    options = ["--rounds", 2, "--markdown", "--plot", folder / "b.png"]
    return folder, *run(folder, "benchmark", *options)


@pytest.mark.slow
@needs_reference
def test_a_run_measures_both_sides_of_every_row_and_reports_all(quick):
    folder, report, printed = quick
    rows = {row["row"]: row for row in report["rows"]}
    assert {name: row["target"] for name, row in rows.items()} == TARGETS
    for name, row in rows.items():
        for side in (row["reference"], row["ours"]):
            assert len(side["rounds"]) == (1 if name == "memory" else 2)
            assert 0 < side["least"] <= side["median"] <= side["most"]
        theirs, ours = row["reference"]["median"], row["ours"]["median"]
        ratio = {"sampling": theirs / ours, "overhead": (ours - theirs) / theirs}
        assert row["ratio"] == pytest.approx(ratio.get(name, ours / theirs))
        least, most = sorted((row["ratio"], row["target"]))
        at_most = name in ("memory", "overhead")
        assert row["met"] == (row["ratio"] == (least if at_most else most))
    about = report["machine"]
    assert about["cores"] >= 1 and about["precision"] in ("float32", "mixed_bfloat16")
    assert any(version.startswith("Keras 3") for version in about["versions"])
    assert report["seconds"] > 0 and report["rounds"] == 2
    assert any("cold" in note for note in report["notes"])
    lines = [line for line in printed.splitlines() if line.startswith("|")]
    assert len(lines) == 2 + len(TARGETS) and {line.count("|") for line in lines} == {8}
    for row, line in zip(report["rows"], lines[2:], strict=True):
        assert row["what"] in line and row["unit"] in line
    assert np.asarray(Image.open(folder / "b.png").convert("L")).std() > 10


@pytest.mark.slow
def test_without_tensorflow_only_ours_is_measured_and_the_reason_given(tmp_path):
    only = ["--only", "training", "overhead", "sampling"]
    report, printed = run(tmp_path, "benchmark", "--rounds", 1, *only, backend="jax")
    assert "No reference" in printed and "jax" in printed
    rows = {row["row"]: row for row in report["rows"]}
    assert list(rows) == ["training", "sampling", "overhead"]
    for name in ("training", "sampling"):
        assert rows[name]["reference"] is None and rows[name]["met"] is None
        assert rows[name]["ours"]["median"] > 0
    assert rows["overhead"]["reference"]["median"] > 0


POINT = {"work": "sampling", "changes": {"preset": "tiny"}, "rounds": 1, "seconds": 0.01}


@pytest.mark.parametrize(
    ("script", "arguments", "words"),
    [
        (benchmark_script, ["--rounds", "0"], ["--rounds", "'0'"]),
        (benchmark_script, ["--only", "everything"], ["'everything'"]),
        (benchmark_script, ["--data-dir", "no/such/folder"], ["no/such/folder"]),
        (benchmark_script, ["--plot", "ratios.txt"], ["ratios.txt"]),
        (benchmark_script, ["--json", "."], ["--json", "folder"]),
        (cost_growth, ["--rounds", "0"], ["--rounds", "'0'"]),
        (cost_growth, ["--only", "height"], ["'height'"]),
        (cost_growth, ["--plot", "growth"], ["growth"]),
        (cost_growth, ["--point", "{}"], ["--point", "{}"]),
        (cost_growth, ["--point", "[1"], ["--point", "[1"]),
        (cost_growth, ["--point", '{"work": "training"}'], ["--point", "preset"]),
        (cost_growth, ["--point", json.dumps(POINT)], ["--point", '"drawn"']),
    ],
)
def test_a_mistake_is_named_in_one_line(refusal, script, arguments, words):
    error = refusal(script.main, *arguments)
    assert all(word in error for word in words)


def test_cases_take_turns_and_each_round_is_as_long_as_requested():
    calls = []

    def case(name, seconds):
        return lambda count: calls.append((name, count)) or seconds * count

    timings = measures.alternate({"slow": case("slow", 5.0), "fast": case("fast", 0.5)}, 3, 2.0)
    warm_up_and_first = 2 * [("slow", 1), ("fast", 1)]
    assert calls == warm_up_and_first + 2 * [("slow", 1), ("fast", 4)]
    assert timings["fast"].rounds == [0.5, 0.5, 0.5] and timings["slow"].first == 5.0


@pytest.mark.slow
def test_peak_memory_is_the_childs_own_and_not_its_parents():
    ballast = np.ones(60_000_000)  # 480 MB
    peak, printed = machine.peak_memory("-c", "print(len(b'x' * 200_000_000))")
    assert printed == "200000000\n"
    assert 200e6 < peak < 300e6
    assert len(ballast)


@pytest.mark.slow
def test_a_measured_process_finds_the_project_and_is_reported_by_its_error(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("PYTHONPATH", raising=False)
    with pytest.raises(RuntimeError, match=r"benchmarks\.cost_growth .*status 2: error"):
        machine.peak_memory("-m", "benchmarks.cost_growth", "--point", "{}")


def test_the_clock_leaves_out_the_first_step():
    clock = measures.StepClock()
    clock.ends = [(0, 100.0), (1, 102.0), (2, 104.0)]
    assert clock.seconds_a_step() == 2.0


def test_pictures_of_a_folder_are_sampled_evenly_and_described(tmp_path):
    (tmp_path / "from").mkdir()
    for index in range(10):
        Image.new("RGB", (40, 30), (index, 0, 0)).save(tmp_path / "from" / f"{index}.png")
    setting = measures.dataclasses.replace(measures.QUICK, pictures=5)
    about = measures.write_pictures(tmp_path / "to", setting, tmp_path / "from")
    assert about.startswith("5 pictures") and "40x30" in about
    reds = sorted(Image.open(path).getpixel((0, 0))[0] for path in (tmp_path / "to").iterdir())
    assert reds == [0, 2, 4, 6, 8]


@needs_reference
def test_the_chapters_pipeline_serves_the_stated_number_of_images(tmp_path):
    from benchmarks import baseline

    measures.write_pictures(tmp_path / "files", measures.QUICK)
    config = measures.dataclasses.replace(measures.QUICK.config, repeats=2)
    batches, count = baseline.Chapter(config).batches(tmp_path / "files")
    served = list(batches)
    assert sum(len(batch) for batch in served) == count == 48
    assert served[0].shape == (config.batch_size, config.image_size, config.image_size, 3)
    assert 0 <= np.min(served) < 0.3 and 0.5 < np.max(served) <= 1


@pytest.mark.slow
def test_the_growth_of_cost_is_measured_point_by_point(tmp_path):
    options = ["--rounds", 2, "--only", "batch", "--plot", tmp_path / "g.png"]
    report, printed = run(tmp_path, "cost_growth", *options)
    points = report["sweeps"]["batch"]
    assert [(point["value"], point["pictures"]) for point in points] == [(4, 4), (8, 8)]
    for point in points:
        assert 0 < point["least"] <= point["seconds"] <= point["most"]
        assert 100e6 < report["nothing"] < point["peak_bytes"] < 10e9
    assert printed.count("batch size (images)") == 2
    assert np.asarray(Image.open(tmp_path / "g.png").convert("L")).std() > 10


def test_each_sweep_varies_one_number_of_the_book_preset():
    book = get_preset("book")
    for name, field in {"batch": "batch_size", "size": "image_size", "width": "widths"}.items():
        for value in growth.SWEEPS[name].values:
            changes = growth.point_of(name, value)["changes"]
            assert changes.pop("preset") == "book" and set(changes) <= {field}
            found = getattr(get_preset("book", **changes), field)
            expected = np.multiply(book.widths, value) if name == "width" else value
            np.testing.assert_allclose(found, expected)
    for name, (drawn, steps) in {"steps": (10, 50), "drawn": (50, 5)}.items():
        point = growth.point_of(name, 50)
        assert (point["drawn"], point["steps"]) == (drawn, steps)
        assert point["changes"] == {"preset": "book"}
