"""Is my loss normal? Compare a run's loss curve with those of reference runs.

The references, `reference_losses.json`, are real runs on the Oxford flowers, per preset one or
more that differ in their seed only: {preset: {"config", "data", "loss", "runs": [{"seed",
"machine", "precision", "versions", "parts"}]}}, where a part is a `curves.Part`.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from statistics import mean

from diffusion.support.files import written_whole
from diffusion.support.tables import lay_out
from diffusion.training.curves import Curve, Part, read_curve
from diffusion.training.record import with_defaults

FILE = Path(__file__).with_name("reference_losses.json")
STEPS = (100, 300, 1000, 3000, 10_000)
# Differences that change the loss at a given step by no more than the seed does.
IRRELEVANT = {"name", "seed", "epochs", "repeats", "painted", "precision", "sampling_steps"}
IRRELEVANT |= {"ema", "ema_warmup"}
# Differences that make two losses incomparable.
DECISIVE = {"image_size", "half_size_epochs", "loss", "objective", "loss_weighting"}
CHECK = (
    "check the learning rate, the schedule, and that the model was adapted to the images; look at "
    "the images it was trained on"
)
EASIER = "fine where the pictures are easier (painted, fewer, larger); else check the loss function"


def read_references(file: Path | str = FILE) -> dict:
    """Read the references by preset, each with its "curves" for its "runs".

    Raises FileNotFoundError, or ValueError where the file is something else.
    """
    content = _read(file)
    return {preset: {**one, "curves": _curves(one)} for preset, one in content.items()}


def collect(folders: Sequence[Path | str], file: Path | str = FILE) -> str:
    """Make one or more runs of a preset, which differ in their seed only, its reference in `file`.

    References of other presets stay. Returns the preset's name. Raises ValueError where the runs
    cannot be one reference, or the file holds something else.
    """
    file = Path(file)
    content = _read(file) if file.exists() else {}
    curves = [read_curve(folder) for folder in folders]
    about = curves[0].about
    for curve in curves:
        if not curve.about or any(not part.image_size for part in curve.parts):
            raise ValueError(f"{curve.name} has no run.json and losses.csv: train it anew")
        if fields := differences(curve.about, about):
            raise ValueError(f"{curve.name} and {curves[0].name} differ in {', '.join(fields)}")
    by_seed = {curve.about["config"]["seed"]: curve for curve in curves}
    if len(by_seed) < len(curves):
        raise ValueError(f"{len(curves)} runs have the seeds {list(by_seed)}: each needs its own")
    name = about["config"]["name"]
    content[name] = {
        **{"config": about["config"], "data": about["data"], "loss": _loss(about)},
        "runs": [_as_reference(seed, curve) for seed, curve in sorted(by_seed.items())],
    }
    with written_whole(file) as temporary:
        temporary.write_text(json.dumps(content) + "\n")
    return name


def differences(about: dict, other: dict) -> dict:
    """Return what makes the loss of two runs differ: {field: (its own value, the other's)}.

    about, other: what `run.json` holds, at least "config" and "data". Seeds do not count.
    """
    ignored = set(IRRELEVANT)
    if other["config"]["decay_learning_rate"]:
        ignored.remove("epochs")  # the last epochs have the lowest rate
    own_config, other_config = with_defaults(about["config"]), with_defaults(other["config"])
    pairs = {
        field: (own_config.get(field, value), value)
        for field, value in other_config.items()
        if field not in ignored
    }
    pairs["data"] = about["data"], other["data"]
    pairs["loss"] = _loss(about), _loss(other)
    return {field: (own, value) for field, (own, value) in pairs.items() if own != value}


def table(reference: dict, curves: Sequence[Curve] = ()) -> str:
    """Return the reference's losses and those of `curves` at some steps, in Markdown."""
    rows = [["steps", "mean", "range", "runs", *(curve.name for curve in curves)]]
    for step, losses in _rows(reference).items():
        span = f"{min(losses):.4f} to {max(losses):.4f}"
        own = ["".join(f"{loss:.4f}" for loss in _near([curve], step)) for curve in curves]
        rows.append([f"{step:,}", f"{mean(losses):.4f}", span, str(len(losses)), *own])
    return "\n".join(lay_out(rows, markdown=True, right=range(len(rows[0]))))


def normal_range(step: int, losses: Sequence[float]) -> tuple[float, float]:
    """Return the range (lowest, highest) in which a loss at `step` is normal.

    It is the range of the references' `losses`, widened at each end by its own width: of three
    runs, the next lies outside their range every second time. The least margin is 0.2 / sqrt(steps
    averaged) of the mean: three times what chance moves the mean of so many batches of 64 images
    (6% for one batch, measured).
    """
    margin = max(max(losses) - min(losses), 0.2 * mean(losses) / (step - step * 3 // 4) ** 0.5)
    return min(losses) - margin, max(losses) + margin


def verdict(curve: Curve, reference: dict) -> list[str]:
    """Say in plain sentences whether a curve is normal: notes, then one on its last known step."""
    config = reference["config"]
    differ = differences(curve.about, reference) if curve.about else {}
    notes = [
        f"{curve.name} has {field} {own}, the reference {value}."
        for field, (own, value) in differ.items()
    ]
    if not curve.about:
        notes.append(
            f"{curve.name} does not say how it was trained: the reference has preset "
            f"{config['name']}, {config['image_size']}x{config['image_size']} pixels, and the loss "
            f"{reference['loss']}."
        )
    if decisive := DECISIVE.intersection(differ):
        names = " and ".join(sorted(decisive))
        return [*notes, f"With another {names} the losses cannot be compared."]
    rows = _rows(reference).items()
    known = [(step, loss, losses) for step, losses in rows for loss in _near([curve], step)]
    if not known:
        return [*notes, f"{curve.name} has no mean loss near step {STEPS[0]} or a later one yet."]
    step, loss, losses = known[-1]
    low, high = normal_range(step, losses)
    start = f"{curve.name}: {loss:.4f} after {step:,} steps is"
    if low <= loss <= high:
        return [*notes, f"{start} within what is normal, {low:.4f} to {high:.4f}."]
    side, advice = ("above", CHECK) if loss > high else ("below", EASIER)
    percent = abs(loss / mean(losses) - 1) * 100
    off = f"{percent:.0f}% off the reference's mean {mean(losses):.4f}"
    return [*notes, f"{start} {side} what is normal, {off}: {advice}."]


def plot_losses(path: Path | str, reference: dict, curves: Sequence[Curve] = ()) -> None:
    """Plot the references' range and mean and the curves over them; write the picture file."""
    import matplotlib.pyplot as plt
    from matplotlib.ticker import NullFormatter

    figure, axis = plt.subplots(figsize=(9, 5))
    band = {step: _near(reference["curves"], step) for step in _curve_steps(reference["curves"])}
    band = {step: losses for step, losses in band.items() if losses}
    columns = list(zip(*((min(v), max(v), mean(v)) for v in band.values()), strict=True))
    count = len(reference["curves"])
    name = f"{count} run{'s' * (count > 1)} of {reference['config']['name']}"
    axis.fill_between(list(band), *columns[:2], alpha=0.3, color="0.4", label=f"{name}: range")
    axis.plot(list(band), columns[2], color="0.3", label=f"{name}: mean")
    for curve in curves:
        points = [(step, loss) for step in _curve_steps([curve]) for loss in _near([curve], step)]
        axis.plot(*zip(*points, strict=True) if points else [[], []], label=curve.name)
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


def _read(file):
    try:
        content = json.loads(Path(file).read_text(encoding="utf-8"))
        for reference in content.values():
            _curves(reference)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError(f"{file} holds no reference losses: {error!r:.100}") from error
    return content


def _curves(reference):
    return [
        Curve(f"seed {run['seed']}", [Part(*part) for part in run["parts"]], run)
        for run in reference["runs"]
    ]


def _as_reference(seed, curve):
    made_by = {name: curve.about.get(name, "") for name in ("machine", "precision", "versions")}
    parts = [[*part[:3], round(part.loss, 5)] for part in curve.parts]
    return {"seed": seed, **made_by, "parts": parts}


def _loss(about):
    """The Keras name of a run's loss; the oldest records lack it."""
    return about.get("loss", "mean_absolute_error")


def _rows(reference):
    """The reference at each step of the table: {step: [the loss of each run that got there]}."""
    end = _last_step(reference["curves"])
    steps = (*(step for step in STEPS if step < end), end)
    return {step: losses for step in steps if (losses := _near(reference["curves"], step))}


def _near(curves, step):
    return [loss for curve in curves if (loss := curve.near(step)) is not None]


def _curve_steps(curves):
    """The steps to plot: each a third more than the one before, as `Curve.near` averages."""
    end = _last_step(curves)
    steps = [25, 50, 75, 100]
    while steps[-1] * 4 // 3 < end:
        steps.append(steps[-1] * 4 // 3)
    return [*(step for step in steps if step < end), end]


def _last_step(curves):
    return max((curve.parts[-1].step for curve in curves if curve.parts), default=0)
