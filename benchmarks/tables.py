"""Lay out a benchmark's report as a table and plot it."""

from pathlib import Path

import utils

from diffusion.support.files import written_whole
from diffusion.support.tables import lay_out

HEAD = ("what", "unit", "reference", "ours", "ratio", "target", "met")


def as_text(report: dict, markdown: bool = False) -> str:
    """Return the report as text: a table, lines on the machine and the run, and the notes."""
    cells = [HEAD, *(row_cells(row) for row in report["rows"])]
    lines = lay_out(cells, markdown)
    about = (
        f"Preset {report['preset']}; medians (least to most), rounds: {report['rounds']}, "
        f"{report['seconds']:.0f} s in all."
    )
    said = [machine_line(report["machine"]), about, *report["notes"]]
    bullets = [f"- {line}" for line in said] if markdown else said
    return "\n".join([*lines, "", *bullets])


def machine_line(machine: dict) -> str:
    """Describe the machine in one line."""
    devices = [*machine["accelerators"], f"{machine['cores']} cores of {machine['processor']}"]
    flags = f" ({', '.join(machine['flags'])})" if machine["flags"] else ""
    versions = ", ".join(machine["versions"])
    return f"{' and '.join(devices)}{flags}; {versions}; our network in {machine['precision']}."


def row_cells(row: dict) -> tuple[str, ...]:
    """Return a row of the report as texts, in the order of `HEAD`."""
    ratio = "-" if row["ratio"] is None else amount(row["kind"], row["ratio"])
    target = amount(row["kind"], row["target"])
    target = (">= " if row["kind"] in ("rate", "time") else "<= ") + target
    if row["limit"]:
        target += f" (limit {row['limit']})"
    met = {True: "yes", False: "no", None: "-"}[row["met"]]
    figures = figure(row["reference"]), figure(row["ours"])
    return (row["what"], row["unit"], *figures, ratio, target, met)


def amount(kind: str, ratio: float) -> str:
    """Format a ratio."""
    return f"{100 * ratio:.1f}%" if kind == "overhead" else f"{number(ratio)}x"


def figure(figures: dict | None) -> str:
    """Format a median with the range of its rounds; "-" for none."""
    if figures is None:
        return "-"
    median, least, most = (number(figures[name]) for name in ("median", "least", "most"))
    return median if least == most else f"{median} ({least} to {most})"


def number(value: float) -> str:
    """Format a number to three digits."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def plot(report: dict, path: Path) -> None:
    """Plot the ratios as bars, the targets as ticks, and write the figure to `path`."""
    import matplotlib.pyplot as plt

    drawn = [row for row in report["rows"] if row["ratio"] is not None]
    drawn = [row for row in drawn if row["kind"] != "overhead"][::-1]  # not a ratio
    if not drawn:
        raise ValueError("nothing to plot: none of these rows has a reference")
    # less memory is better: take the inverse, so that longer bars are always better
    better = [1 / row["ratio"] if row["kind"] == "memory" else row["ratio"] for row in drawn]
    colour, mark = utils.COLOURS[0], utils.COLOURS[1]
    chart, axis = plt.subplots(figsize=(9, 1.2 + 0.5 * len(drawn)))
    axis.barh(range(len(drawn)), [value - 1 for value in better], left=1, height=0.6, color=colour)
    axis.plot([row["target"] for row in drawn], range(len(drawn)), "|", ms=22, mew=3, color=mark)
    for index, (row, value) in enumerate(zip(drawn, better, strict=True)):
        axis.text(1.12 * max(value, row["target"]), index, f"{number(value)}x", va="center")
    axis.set_xscale("log")
    axis.set_xlim(min(0.8, *better), 3 * max(*better, *(row["target"] for row in drawn)))
    axis.xaxis.set_major_formatter("{x:g}x")
    axis.axvline(1, color="0.4", linewidth=1)
    axis.set_yticks(range(len(drawn)), [row["what"].replace("`", "") for row in drawn])
    axis.grid(visible=False, axis="y")
    axis.set_xlabel("times as fast as the chapter, or chapter's memory / ours (mark: the target)")
    utils.add_caption(chart, machine_line(report["machine"]))
    with written_whole(path) as temporary:
        chart.savefig(temporary)
    plt.close(chart)
