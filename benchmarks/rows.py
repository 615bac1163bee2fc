"""The rows of the benchmark's table: what each measures on both sides, and its target."""

import dataclasses
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import keras

from benchmarks import machine, measures
from diffusion.data.flowers import load_flowers
from diffusion.support.precision import accelerators

TRAIN = Path(__file__).resolve().parents[1] / "scripts" / "train.py"
FLOWERS, BOOK_EPOCHS = 8189, 50  # the chapter's data and epochs


@dataclasses.dataclass(frozen=True)
class Row:
    """A row: what is measured, in which unit, and its target.

    kind: the ratio of a "rate" or a "time", in our favour, must be at least `target`; our share
    of the reference's "memory", and what an "overhead" adds to it, at most `target`.
    limit: the best ratio that the hardware allows, or another bound.
    """

    what: str
    unit: str
    kind: str
    target: float
    limit: str = ""

    def ratio(self, reference, ours):
        """Return the ratio of two medians."""
        if self.kind == "time":
            return reference / ours
        return ours / reference - (self.kind == "overhead")

    def met(self, ratio):
        """Return whether the target is met."""
        return ratio >= self.target if self.kind in ("rate", "time") else ratio <= self.target


ROWS = {
    "training": Row("training", "images/s", "rate", 1.8, "3.5x"),
    "xla": Row("training, the reference by XLA", "images/s", "rate", 3.6, "7x"),
    "sampling": Row("{few} images in {steps} DDIM steps", "s", "time", 3.5),
    "sampling-many": Row("{many} images in {steps} DDIM steps", "images/s", "rate", 3.0),
    "pipeline": Row("input after the first pass", "images/s", "rate", 100.0, "memory bandwidth"),
    "memory": Row("peak memory of training", "GB", "memory", 1.0),
    "overhead": Row("a whole step; reference: our network alone", "ms", "overhead", 0.05, "0%"),
    "gpu": Row("50 `book` epochs, 8,189 flowers", "min", "time", 6.0),
}


def say(line: str) -> None:
    """Report progress."""
    print(line, file=sys.stderr, flush=True)


class Benchmark:
    """Measure rows: `results` holds a dictionary for each, `notes` what a reader must know."""

    def __init__(self, setting, names, rounds, data_dir=None):
        self.setting, self.rounds, self.data_dir = setting, rounds, data_dir
        self.results, self.notes = [], []
        self.names = set(names)
        if "gpu" in names and not accelerators():
            self.names.remove("gpu")
            self.notes.append("No row for a GPU: none was found.")
        self.ours, self.chapter = measures.Ours(setting.config), None
        if (backend := keras.backend.backend()) == "tensorflow":
            from benchmarks.baseline import Chapter

            self.chapter = Chapter(setting.config)
        else:
            self.notes.append(f"No reference: it is written in TensorFlow, this ran on {backend}.")

    def run(self):
        """Measure all selected rows."""
        for names, measure in (
            ({"training", "xla", "overhead", "gpu"}, self.measure_training),
            ({"sampling"}, self.measure_sampling),
            ({"sampling-many"}, self.measure_sampling_many),
            ({"pipeline"}, self.measure_pipeline),
            ({"memory"}, self.measure_memory),
        ):
            if names & self.names:
                measure()
        self.results.sort(key=lambda result: list(ROWS).index(result["row"]))

    def measure_training(self):
        """Time a training step: the chapter's (also with XLA), ours, and our network's alone."""
        cases = {"ours": self.ours.training}
        if self.chapter and "training" in self.names:
            cases["chapter"] = self.chapter.training(jit_compile=False)
        if self.chapter and "xla" in self.names:
            cases["chapter, XLA"] = self.chapter.training(jit_compile=True)
        if "overhead" in self.names:
            cases["network alone"] = self.ours.network_alone()
        timings = self.alternate("training", cases)
        batch_size = self.setting.config.batch_size
        self.add("training", timings, "chapter", lambda seconds: batch_size / seconds)
        self.add("xla", timings, "chapter, XLA", lambda seconds: batch_size / seconds)
        self.add("overhead", timings, "network alone", lambda seconds: 1000 * seconds)
        if "gpu" in self.names:
            steps = BOOK_EPOCHS * (FLOWERS * self.setting.config.repeats // batch_size)
            minutes = [steps * seconds / 60 for seconds in timings["ours"].rounds]
            self.add_figures("gpu", [30.0], minutes)
            self.notes.append(
                "50 epochs: ours is extrapolated from the training steps above; the 30 minutes "
                "are those that keras.io states for its example on an A100, not measured here."
            )

    def measure_sampling(self):
        """Time generating a few images, warm; the first call goes into a note."""
        few = self.setting.few
        timings = self.time_sampling("sampling", few, self.setting.steps)
        self.add("sampling", timings, "chapter", lambda seconds: seconds)
        first = ", ".join(f"{name} {timing.first:.2f} s" for name, timing in timings.items())
        self.notes.append(f"Drawing {few} images for the first time, cold: {first}.")

    def measure_sampling_many(self):
        """Time generating many images, with only a few of the steps."""
        setting = self.setting
        timings = self.time_sampling("sampling-many", setting.many, setting.many_steps)
        parts = setting.steps / setting.many_steps
        per_second = setting.many / parts
        self.add("sampling-many", timings, "chapter", lambda seconds: per_second / seconds)
        self.notes.append(
            f"{setting.many} images: both sides are measured at {setting.many_steps} of "
            f"{setting.steps} steps and multiplied by {parts:g}: the cost is linear in them."
        )

    def time_sampling(self, name, count, steps):
        """Time generating `count` images in `steps` steps on both sides."""
        sides = {"ours": self.ours} | ({"chapter": self.chapter} if self.chapter else {})
        return self.alternate(
            name, {key: side.sampling(count, steps) for key, side in sides.items()}
        )

    def measure_pipeline(self):
        """Time an epoch of input: files decoded in each pass against the mapped array."""
        setting, config = self.setting, self.setting.config
        with tempfile.TemporaryDirectory() as folder:
            files, cache = Path(folder, "files"), Path(folder, "cache")
            about = measures.write_pictures(files, setting, self.data_dir)
            start = time.perf_counter()
            flowers = load_flowers(
                files, config.image_size, config.fit, cache_dir=cache, progress=False
            )
            decoding = time.perf_counter() - start
            rows = measures.as_many_rows(flowers.images, setting.rows, cache)
            # name -> (the case of an epoch, its number of images)
            epochs = {"ours": self.ours.pipeline(rows)}
            if self.chapter:
                epochs["chapter"] = self.chapter.pipeline(files)
            timings = self.alternate("pipeline", {name: epochs[name][0] for name in epochs})
        rates = {
            name: [epochs[name][1] / seconds for seconds in timing.rounds]
            for name, timing in timings.items()
        }
        self.add_figures("pipeline", rates.get("chapter"), rates["ours"])
        self.notes.append(
            f"Input: {about}. Ours decoded them once, in {decoding:.2f} s, and serves uint8 from a "
            f"mapped array of {setting.rows:,} rows, in which they are repeated."
        )

    def measure_memory(self):
        """Measure a process's peak resident memory on each side, once: it hardly varies."""
        config, steps = self.setting.config, self.setting.memory_steps
        say("memory: ours")
        with tempfile.TemporaryDirectory() as folder:
            options = ["--preset", config.name, "--data-dir", self.data_dir or "painted"]
            options += ["--output", folder, "--max-steps", steps]
            ours = machine.peak_memory(TRAIN, *options)[0]
        reference = None
        if self.chapter:
            say("memory: chapter")
            command = "-m", "benchmarks.baseline", config.name, steps
            reference = [machine.peak_memory(*command)[0] / 1e9]
        self.add_figures("memory", reference, [ours / 1e9])
        self.notes.append(
            f"Memory: the peak of each process in {steps} steps; ours is scripts/train.py with its "
            "data, checkpoint and sample grid, the chapter's the steps alone."
        )

    def alternate(self, name, cases):
        """Time the cases in alternation, reporting progress."""
        return measures.alternate(
            cases, self.rounds, self.setting.seconds, lambda line: say(f"{name}: {line}")
        )

    def add(self, name, timings, reference, convert):
        """Add a row of timings, converted to its unit, if it is selected."""
        if name in self.names:
            figures = [
                [convert(seconds) for seconds in timings[side].rounds] if side in timings else None
                for side in (reference, "ours")
            ]
            self.add_figures(name, *figures)

    def add_figures(self, name, reference, ours):
        """Add a row from each round's figures, of the reference (None without one) and ours."""
        row = ROWS[name]
        sides = {"reference": reference and summary(reference), "ours": summary(ours)}
        ratio = met = None
        if reference:
            ratio = row.ratio(sides["reference"]["median"], sides["ours"]["median"])
            met = row.met(ratio)
        what = row.what.format(**dataclasses.asdict(self.setting))
        judged = {"ratio": ratio, "kind": row.kind, "target": row.target, "limit": row.limit}
        self.results.append(
            {"row": name, "what": what, "unit": row.unit, **sides, **judged, "met": met}
        )


def summary(figures: Sequence) -> dict:
    """Return median, range and all figures of the rounds."""
    return {
        "median": statistics.median(figures),
        "least": min(figures),
        "most": max(figures),
        "rounds": list(figures),
    }
