"""Measure points of the cost of training and sampling, each in a process; tabulate and plot them.

A point is a dictionary: "work" ("training", "sampling", or "nothing", which only builds the
model), "changes" to the preset, for sampling "drawn" (images at once) and "steps", and "rounds"
and "seconds" as in `measures.alternate`.
"""

import dataclasses
import json
import statistics
import sys
from collections.abc import Iterable
from pathlib import Path

import utils

from benchmarks import machine, measures
from benchmarks.tables import machine_line, number
from diffusion.support.files import written_whole
from diffusion.support.tables import lay_out

BOOK_WIDTHS = (32, 64, 96, 128)


@dataclasses.dataclass(frozen=True)
class Sweep:
    """One number varied while all others are the preset's: its values and the axis's label."""

    work: str
    label: str
    values: tuple
    quick: tuple  # the values of a quick run


SWEEPS = {
    "batch": Sweep("training", "batch size (images)", (8, 16, 32, 64, 128, 256), (4, 8)),
    "size": Sweep("training", "image size (pixels)", (16, 32, 64, 96, 128), (8, 16)),
    "width": Sweep("training", "width (book = 1)", (0.5, 1, 2), (0.5, 1)),
    "steps": Sweep("sampling", "DDIM steps (10 images)", (1, 2, 5, 10, 20, 50), (1, 2)),
    "drawn": Sweep("sampling", "images at once (5 steps)", (1, 4, 16, 64, 256), (1, 4)),
}


def point_of(name: str, value: float, quick: bool = False) -> dict:
    """Return the point of a sweep at one of its values."""
    changes = {"preset": "tiny" if quick else "book"}
    if name in ("batch", "size"):
        changes["batch_size" if name == "batch" else "image_size"] = value
    if name == "width" and value != 1:
        widths = (8, 16) if quick else BOOK_WIDTHS
        changes["widths"] = [int(width * value) for width in widths]
    point = {"work": SWEEPS[name].work, "changes": changes}
    if point["work"] == "sampling":
        point |= {"drawn": value, "steps": 5} if name == "drawn" else {"drawn": 10, "steps": value}
    return point


def measure(point: dict) -> dict:
    """Measure one point in this process: median, least and most seconds per unit of its work.

    A unit is a training step, or a call that generates the images. On an accelerator its peak
    memory is added.
    """
    changes = dict(point["changes"])
    config = measures.get_preset(changes.pop("preset"), precision="auto", **changes)
    ours, result = measures.Ours(config), {"precision": config.precision}
    if point["work"] != "nothing":
        case = ours.training
        if point["work"] == "sampling":
            case = ours.sampling(point["drawn"], point["steps"])
        timing = measures.alternate({"": case}, point["rounds"], point["seconds"])[""]
        seconds = timing.rounds
        result = {"seconds": statistics.median(seconds), "least": min(seconds)}
        result |= {"most": max(seconds), "pictures": point.get("drawn", config.batch_size)}
    return result | {"device_bytes": machine.device_memory()}


def measure_all(names: Iterable, rounds: int, quick: bool, command: list) -> dict:
    """Measure the sweeps of the given names; return the report.

    command: arguments of Python that measure a point, given as JSON after them.
    """
    known = {}

    def measured(point):
        point = point | {"rounds": rounds, "seconds": 0.05 if quick else 3.0}
        told = json.dumps(point)
        if told not in known:
            print(told, file=sys.stderr, flush=True)
            peak, printed = machine.peak_memory(*command, told)
            known[told] = json.loads(printed.splitlines()[-1])
            known[told]["peak_bytes"] = known[told].pop("device_bytes") or peak
        return known[told]

    preset = "tiny" if quick else "book"
    report = {"machine": machine.describe("auto"), "preset": preset, "rounds": rounds}
    report["nothing"] = measured({"work": "nothing", "changes": {"preset": preset}})["peak_bytes"]
    report["sweeps"] = {}
    for name in names:
        values = SWEEPS[name].quick if quick else SWEEPS[name].values
        points = [{"value": value, **measured(point_of(name, value, quick))} for value in values]
        report["sweeps"][name] = points
    return report


def as_text(report: dict, markdown: bool = False) -> str:
    """Lay the report out as one table, followed by lines on the machine and the run."""
    head = ("work", "varied", "value", "images/s", "s a step or call (least to most)", "peak GB")
    cells = [head]
    for name, points in report["sweeps"].items():
        for point in points:
            rate = number(point["pictures"] / point["seconds"])
            seconds = "{} ({} to {})".format(
                *(number(point[n]) for n in ("seconds", "least", "most"))
            )
            about = SWEEPS[name].work, SWEEPS[name].label, f"{point['value']:g}"
            cells.append((*about, rate, seconds, f"{point['peak_bytes'] / 1e9:.2f}"))
    nothing = report["nothing"] / 1e9
    return "\n".join(
        [
            *lay_out(cells, markdown),
            "",
            machine_line(report["machine"]),
            f"Preset {report['preset']}; medians, rounds: {report['rounds']}. A process that "
            f"builds the model and does nothing holds {nothing:.2f} GB.",
        ]
    )


def plot(report: dict, path: Path) -> None:
    """Plot small multiples, time above memory, and write the figure to `path`."""
    import matplotlib.pyplot as plt

    sweeps = report["sweeps"]
    figure, axes = plt.subplots(
        2, len(sweeps), figsize=(1 + 2.5 * len(sweeps), 5.8), sharex="col", squeeze=False
    )
    for column, (name, points) in zip(axes.T, sweeps.items(), strict=True):
        draw_sweep(column, name, points, report["nothing"] / 1e9)
    where = "GPU memory" if report["machine"]["accelerators"] else "memory"
    share_axis(axes[1], f"peak {where} (GB)")
    for work, unit in (("training", "images per second"), ("sampling", "seconds per call")):
        pairs = zip(axes[0], sweeps, strict=True)
        same = [axis for axis, name in pairs if SWEEPS[name].work == work]
        share_axis(same, unit)
    dotted = "dotted: a process that builds the model and does nothing"
    utils.add_caption(figure, f"{dotted}; {machine_line(report['machine'])}")
    with written_whole(path) as temporary:
        figure.savefig(temporary)
    plt.close(figure)


def share_axis(axes, label):
    """Give neighbouring axes one range, labelled on the first of them."""
    limits = [limit for axis in axes for limit in axis.get_ylim()]
    for axis in axes:
        axis.set_ylim(min(limits), max(limits))
        axis.tick_params(labelleft=axis is axes[0])
    if len(axes):
        axes[0].set_ylabel(label)


def draw_sweep(column, name, points, nothing):
    """Plot a sweep on its two axes; the dotted line, in GB, is a process that does nothing."""
    import matplotlib.ticker as ticker

    above, below = column
    training = SWEEPS[name].work == "training"
    colour = utils.COLOURS[0 if training else 1]
    values = [point["value"] for point in points]
    rates = [point["pictures"] / point["seconds"] for point in points]
    seconds = [point["seconds"] for point in points]
    above.plot(values, rates if training else seconds, "o-", color=colour)
    above.set_title(SWEEPS[name].work, color=colour)
    below.plot(values, [point["peak_bytes"] / 1e9 for point in points], "o-", color=colour)
    below.axhline(nothing, color="0.4", linewidth=1.5, linestyle=":")
    below.set_xlabel(SWEEPS[name].label)
    below.set_xscale("log", base=2)
    below.set_xticks(values, [f"{value:g}" for value in values])
    below.xaxis.set_minor_locator(ticker.NullLocator())
    for axis in column:  # proportional growth has the same slope everywhere
        axis.set_yscale("log")
        axis.yaxis.set_major_locator(ticker.LogLocator(subs=(1, 2, 5)))
        axis.yaxis.set_major_formatter("{x:g}")
        axis.yaxis.set_minor_locator(ticker.NullLocator())
