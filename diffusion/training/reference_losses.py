"""Is my loss normal? A run's loss curve beside those of reference runs, in words and a figure.

The references, `reference_losses.json`, are real runs on the Oxford flowers, for each preset a few
that differ in their seed alone: {preset: {"config", "data", "loss", "runs": [{"seed", "machine",
"precision", "versions", "parts"}]}}, the parts those of `curves.Part`.
"""

import json
from pathlib import Path
from statistics import mean

from diffusion.support.files import written_whole
from diffusion.training.curves import Curve, Part, read_curve
from diffusion.training.record import with_defaults

FILE = Path(__file__).with_name("reference_losses.json")
STEPS = (100, 300, 1000, 3000, 10_000)
# What moves no loss at a given step, or no more than a seed does.
IRRELEVANT = {"name", "seed", "epochs", "repeats", "painted", "precision", "sampling_steps"}
IRRELEVANT |= {"ema", "ema_warmup"}
# Otherwise, two losses mean two things.
DECISIVE = {"image_size", "half_size_epochs", "loss", "objective", "loss_weighting"}
CHECK = (
    "check the learning rate, that the model was adapted to the pictures, and the schedule; look "
    "at the pictures that it was trained on"
)
EASIER = "fine where the pictures are easier (painted, fewer, larger); else check the loss function"


def read_references(file=FILE):
    """Read the references: a dictionary by preset. Raises ValueError where the file is none."""
    try:
        content = json.loads(Path(file).read_text())
        for reference in content.values():
            reference["curves"] = [
                Curve(f"seed {run['seed']}", [Part(*part) for part in run["parts"]], run)
                for run in reference["runs"]
            ]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{file} holds no reference losses: {error}") from error
    return content


def collect(folders, file=FILE):
    """Put runs of one preset, which differ in their seed alone, into the file as its reference.

    What the file holds for other presets stays. Returns the preset's name. Raises ValueError where
    the runs cannot be one reference.
    """
    curves = [read_curve(folder) for folder in folders]
    for curve in curves:
        if not curve.about or any(not part.image_size for part in curve.parts):
            raise ValueError(f"{curve.name} has no run.json and losses.csv: train it anew")
        if fields := differences(curve.about, curves[0].about):
            names = ", ".join(fields)
            raise ValueError(f"{curve.name} and {curves[0].name} differ in {names}")
    seeds = [curve.about["config"]["seed"] for curve in curves]
    if len(set(seeds)) < len(seeds):
        raise ValueError(f"the seeds of the runs are {seeds}: each must have its own")
    about = curves[0].about
    reference = {"config": about["config"], "data": about["data"], "loss": loss_name(about)}
    reference["runs"] = [
        {
            "seed": seed,
            **{name: curve.about[name] for name in ("machine", "precision", "versions")},
            "parts": [[*part[:3], round(part.loss, 5)] for part in curve.parts],
        }
        for seed, curve in sorted(zip(seeds, curves, strict=True), key=lambda pair: pair[0])
    ]
    file = Path(file)
    content = json.loads(file.read_text()) if file.exists() else {}
    content[about["config"]["name"]] = reference
    with written_whole(file) as temporary:
        temporary.write_text(json.dumps(content) + "\n")
    return about["config"]["name"]


def loss_name(about):
    """What the loss was, by its Keras name."""
    return about.get("loss", "mean_absolute_error")


def differences(about, other):
    """In what a run differs from another, so that its loss does: {field: (its own, the other's)}.

    about, other: what `run.json` holds, at least "config" and "data". Seeds do not count.
    """
    ignored = set(IRRELEVANT)
    if other["config"]["decay_learning_rate"]:
        ignored.remove("epochs")  # the last epochs are those of the lowest rate
    own_config, other_config = with_defaults(about["config"]), with_defaults(other["config"])
    pairs = {
        field: (own_config.get(field, value), value)
        for field, value in other_config.items()
        if field not in ignored
    }
    pairs["data"] = about["data"], other["data"]
    pairs["loss"] = loss_name(about), loss_name(other)
    return {field: (own, value) for field, (own, value) in pairs.items() if own != value}


def rows(reference):
    """The reference at each step of the table: {step: [the loss of each run that got there]}."""
    end = max(curve.parts[-1].step for curve in reference["curves"])
    losses = {
        step: [loss for curve in reference["curves"] if (loss := curve.near(step)) is not None]
        for step in (*(step for step in STEPS if step < end), end)
    }
    return {step: values for step, values in losses.items() if values}


def table(reference, curves=()):
    """The reference's losses and those of `curves` at the table's steps, in Markdown."""
    names = "".join(f" {curve.name} |" for curve in curves)
    lines = [f"| steps | mean | range | runs |{names}", "| ---: " * (4 + len(curves)) + "|"]
    for step, losses in rows(reference).items():
        span = f"{min(losses):.4f} to {max(losses):.4f}"
        line = f"| {step:,} | {mean(losses):.4f} | {span} | {len(losses)} |"
        for curve in curves:
            loss = curve.near(step)
            line += " |" if loss is None else f" {loss:.4f} |"
        lines.append(line)
    return "\n".join(lines)


def normal_range(step, losses):
    """The range (lowest, highest) in which a loss at `step` is normal, from the references'.

    It is theirs, widened at each end by its own width: of three runs, the next is outside of the
    range every second time. By no less than 0.2 / sqrt(steps averaged) of the mean, three times
    what chance moves the mean of so many batches of 64 pictures by (6% for one, measured).
    """
    margin = max(max(losses) - min(losses), 0.2 * mean(losses) / (step - step * 3 // 4) ** 0.5)
    return min(losses) - margin, max(losses) + margin


def verdict(curve, reference):
    """Say in plain sentences whether a curve is normal: notes, then one on its last known step."""
    notes = []
    differ = differences(curve.about, reference) if "config" in curve.about else {}
    for field, (own, value) in differ.items():
        notes.append(f"{curve.name} has {field} {own}, the reference {value}.")
    if "config" not in curve.about:
        notes.append(
            f"{curve.name} does not say how it was trained: the reference has preset "
            f"{reference['config']['name']}, pictures of {reference['config']['image_size']} "
            f"pixels, and the loss {reference['loss']}."
        )
    if decisive := DECISIVE.intersection(differ):
        names = " and ".join(sorted(decisive))
        return [*notes, f"With another {names} the losses cannot be compared."]
    known = {step: losses for step, losses in rows(reference).items() if curve.near(step)}
    if not known:
        return [*notes, f"{curve.name} has no mean loss near step {STEPS[0]} or a later one yet."]
    step, losses = max(known.items())
    loss, (low, high) = curve.near(step), normal_range(step, losses)
    percent = abs(loss / mean(losses) - 1) * 100
    start = f"{curve.name}: {loss:.4f} after {step:,} steps is"
    if low <= loss <= high:
        return [*notes, f"{start} within what is normal, {low:.4f} to {high:.4f}."]
    side, advice = ("above", CHECK) if loss > high else ("below", EASIER)
    about = f"{side} what is normal, {percent:.0f}% off the reference's mean {mean(losses):.4f}"
    return [*notes, f"{start} {about}: {advice}."]


def plot_losses(path, reference, curves=()):
    """Draw the references' band and mean with curves over them, and write the picture file."""
    import matplotlib.pyplot as plt
    from matplotlib.ticker import NullFormatter

    figure, axis = plt.subplots(figsize=(9, 5))
    band = {
        step: _all_near(reference["curves"], step) for step in _curve_steps(reference["curves"])
    }
    band = {step: losses for step, losses in band.items() if losses}
    columns = list(zip(*((min(v), max(v), mean(v)) for v in band.values()), strict=True))
    name = f"{len(reference['curves'])} runs of {reference['config']['name']}"
    axis.fill_between(list(band), *columns[:2], alpha=0.3, color="0.4", label=f"{name}: range")
    axis.plot(list(band), columns[2], color="0.3", label=f"{name}: mean")
    for curve in curves:
        points = {
            step: loss for step in _curve_steps([curve]) if (loss := curve.near(step)) is not None
        }
        axis.plot(list(points), list(points.values()), label=curve.name)
    axis.set(xscale="log", yscale="log", xlabel="training steps")
    axis.set_ylabel("noise loss (mean absolute error)")
    losses = (0.13, 0.14, 0.15, 0.16, 0.18, 0.2, 0.25, 0.3, 0.4, 0.6, 0.8)
    for ticks, along in ((losses, axis.yaxis), ((30, *STEPS, 30_000), axis.xaxis)):
        low, high = along.get_view_interval()
        shown = [tick for tick in ticks if low <= tick <= high]
        along.set_ticks(shown, [f"{tick:,}" for tick in shown])
        along.set_minor_formatter(NullFormatter())
    axis.legend()
    with written_whole(path) as temporary:
        figure.savefig(temporary)
    plt.close(figure)


def _curve_steps(curves):
    """Steps to draw curves at: each a third more than the one before, like what `near` averages."""
    end = max(curve.parts[-1].step for curve in curves if curve.parts)
    steps = [25, 50, 75, 100]
    while steps[-1] * 4 // 3 < end:
        steps.append(steps[-1] * 4 // 3)
    return [*(step for step in steps if step < end), end]


def _all_near(curves, step):
    return [loss for curve in curves if (loss := curve.near(step)) is not None]
