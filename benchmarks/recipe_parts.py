"""Compare networks and recipes at equal processor time; docs/recipe.md has the results."""

import argparse
import dataclasses
import itertools
import json
import sys
import time
from pathlib import Path

import numpy as np

from benchmarks.recipes import RECIPES, Recipe
from diffusion.support.files import written_whole
from diffusion.support.tables import lay_out
from scripts import command

# name, heading, factor, digits
MEASURES = (("kid", "KIDx1000", 1000, 0), ("precision", "prec.", 1, 2), ("recall", "rec.", 1, 2))


def parse_arguments():
    parser = command.Parser(
        prog="python -m benchmarks.recipe_parts",
        description="Train each recipe for the same processor time, judge it on held-out images by "
        "its errors and by the images it generates, and print a table. Finished runs are kept in a "
        "file and not repeated: to continue an interrupted comparison, type the same again.",
    )
    add = parser.add_argument
    add("--list", action="store_true", help="list the recipes and stop")
    words = "which to compare, in this order (default: all)"
    one = command.one_of(tuple(RECIPES))
    add("--recipes", type=one, nargs="+", metavar="NAME", default=list(RECIPES), help=words)
    parser.add_data_dir()
    words = "processor time of each run, summed over the cores (default: %(default)s)"
    add("--seconds", type=command.number(float, above=0), default=300, help=words)
    words = "train once with each seed; the table has means and standard deviations (default: 0)"
    add("--seeds", type=command.SEED, nargs="+", default=[0], help=words)
    words = "side of the images (default: %(default)s)"
    add("--image-size", type=int, choices=(32, 64), default=32, help=words)
    words, scale = "guidance scales (default: 1 2 3)", command.number(float, least=0)
    add("--guidance", type=scale, nargs="+", metavar="SCALE", default=[1.0, 2.0, 3.0], help=words)
    parser.add_count("--num-images", 512, "images to generate at each scale", least=8)
    add("--markdown", action="store_true", help="print the table as Markdown")
    parser.add_file("--output", results_file, "recipes.jsonl", "finished runs, one a line")
    return parser.parse_args()


def results_file(text: str) -> Path:
    """An argparse type: a new .jsonl file, or one that this benchmark wrote."""
    path = Path(text)
    if not path.is_file():
        return command.writable(".jsonl")(text)
    try:
        load_runs(path)
    except (OSError, ValueError) as error:
        raise argparse.ArgumentTypeError(str(error)) from error
    return path


def main():
    arguments = parse_arguments()
    if arguments.list:
        print("\n".join(lay_out([(name, recipe.words) for name, recipe in RECIPES.items()])))
        return 0
    command.load_keras()
    from diffusion.data.flowers import load_flowers

    flowers = load_flowers(arguments.data_dir, arguments.image_size, progress=sys.stderr.isatty())
    runs, floor = compare(flowers, arguments)
    print("\n".join(lay_out(table(runs, floor, arguments.guidance), arguments.markdown)))
    return 0


def compare(flowers, arguments) -> tuple[list[dict], dict]:
    """Train and judge what the results file does not have yet.

    arguments: recipes, seeds, seconds, guidance, num_images, output, as on the command line.
    Returns all runs that were asked for, and how real images compare with real ones.
    """
    import keras

    from benchmarks.recipe_judge import Judge
    from diffusion.data.holdout import hold_out
    from diffusion.evaluation.encoder import load_encoder

    learn, held, words = hold_out(flowers)
    print(f"{len(learn):,} images for training; judged on {words}", flush=True)
    data = flowers.images[learn], flowers.labels[learn], flowers.class_names
    held_out, encoder = (flowers.images[held], flowers.labels[held]), load_encoder()
    judge = Judge(*held_out, encoder, arguments.guidance, arguments.num_images)
    runs = []
    for name, seed in itertools.product(arguments.recipes, arguments.seeds):
        recipe = seeded(RECIPES[name], seed, flowers.images.shape[1])
        settings = settings_of(name, recipe, flowers, arguments)
        run = find_run(arguments.output, settings)
        outcome = f"already in {arguments.output}"
        if run is None:
            keras.utils.clear_session()
            run = {
                "settings": settings,
                "result": run_recipe(recipe, data, arguments.seconds, judge),
            }
            save_run(arguments.output, run)
            outcome = f"{run['result']['steps']:,} steps in {run['result']['wall']:.0f} s"
        print(f"{name}, seed {seed}: {outcome}", flush=True)
        runs.append(run)
    return runs, judge.floor()


def seeded(recipe: Recipe, seed: int, image_size: int) -> Recipe:
    """Return the recipe with this seed, for this resolution."""
    config = dataclasses.replace(recipe.config, seed=seed, image_size=image_size)
    return dataclasses.replace(recipe, config=config)


def settings_of(name: str, recipe: Recipe, flowers, arguments) -> dict:
    """Return all that a run's result follows from, as JSON has it."""
    import keras

    numbers = dataclasses.asdict(recipe)
    del numbers["words"]
    for field in ("name", "epochs", "sampling_steps"):  # these change no result
        del numbers["config"][field]
    settings = {
        "name": name,
        "recipe": numbers,
        "seconds": arguments.seconds,
        "guidance": arguments.guidance,
        "num_images": arguments.num_images,
        "data": flowers.fingerprint or flowers.description,
        "backend": keras.backend.backend(),
    }
    return json.loads(json.dumps(settings))


def run_recipe(recipe: Recipe, data: tuple, seconds: float, judge) -> dict:
    """Train by one recipe on (images, labels, class names) and return what the judge says."""
    from benchmarks.recipe_training import train

    started = time.perf_counter()
    model, averages, steps = train(recipe, *data, seconds)
    wall = time.perf_counter() - started
    scores = []
    for length, weights in averages.weights.items():
        model.ema_network.set_weights(weights)
        scores.append({"average": length, **judge.scores(model)})
    scores = scores or [{"average": recipe.config.ema, **judge.scores(model)}]
    parameters = model.network.count_params()
    return {"parameters": parameters, "steps": steps, "wall": wall, "scores": scores}


def load_runs(path: Path) -> list[dict]:
    """Return the runs in a file of results, none if there is no file.

    Raises ValueError, naming the line, where it holds something else.
    """
    runs = []
    lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
    for number, line in enumerate(lines, start=1):
        try:
            run = json.loads(line)
            run["settings"]["name"], run["result"]["scores"]
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(
                f"{path}, line {number}, is no run of recipe_parts: delete the line, or choose "
                "another file"
            ) from error
        runs.append(run)
    return runs


def summaries(path: Path) -> list[dict]:
    """Return the finished runs of a file in short, by name and processor time; none without a file.

    Each has name, seconds (of processor time), seed, steps, parameters, velocity_error, and kid and
    recall: dictionaries by guidance scale. A run with several averages has one for each, in order.
    Raises ValueError, naming the line, where the file holds something else.
    """
    rows = [_summary(run, score) for run in load_runs(path) for score in run["result"]["scores"]]
    return sorted(rows, key=lambda row: (row["name"], row["seconds"], row["seed"]))


def _summary(run, score):
    settings, result = run["settings"], run["result"]
    row = {name: settings[name] for name in ("name", "seconds")}
    row["seed"] = settings["recipe"]["config"]["seed"]
    row |= {name: result[name] for name in ("steps", "parameters")}
    row["velocity_error"] = score["velocity_error"]
    for measure in ("kid", "recall"):
        row[measure] = {float(scale): found[measure] for scale, found in score["guidance"].items()}
    return row


def find_run(path: Path, settings: dict) -> dict | None:
    """Return the run with these settings in a file of results, None if it has none."""
    return next((run for run in load_runs(path) if run["settings"] == settings), None)


def save_run(path: Path, run: dict) -> None:
    """Append a run to a file of results, which is written whole."""
    lines = [json.dumps(each) + "\n" for each in [*load_runs(path), run]]
    with written_whole(path) as temporary:
        temporary.write_text("".join(lines), encoding="utf-8")


def table(runs: list[dict], floor: dict, guidance: list[float]) -> list[tuple]:
    """Return the rows of the table: headings, real images, then each recipe and average."""
    heads = ["recipe", "parameters", "steps", "noise error", "velocity error"]
    heads += [f"{words} at {scale:g}" for scale in guidance for _, words, _, _ in MEASURES]
    real = [_cell([floor[name]], *form) for _ in guidance for name, _, *form in MEASURES]
    cells: dict[str, list] = {}
    for run in runs:
        name, result = run["settings"]["name"], run["result"]
        for score in result["scores"]:
            one = len(result["scores"]) == 1
            label = name if one else f"{name}, {score['average'] or 'no average'}"
            cells.setdefault(label, []).append((result, score))
    rows = [tuple(heads), ("real against real", "-", "-", "-", "-", *real)]
    return rows + [(label, *_row(judged, guidance)) for label, judged in cells.items()]


def _row(judged, guidance):
    yield f"{judged[0][0]['parameters']:,}"
    yield f"{np.mean([result['steps'] for result, _ in judged]):,.0f}"
    for name in ("noise_error", "velocity_error"):
        yield _cell([score[name] for _, score in judged], 1, 4)
    for scale in guidance:
        for name, _, *form in MEASURES:
            found = [score["guidance"].get(f"{scale:g}", {}).get(name) for _, score in judged]
            yield "-" if None in found else _cell(found, *form)


def _cell(values, factor, digits):
    """Return the mean of values, with their standard deviation if there are several."""
    values = factor * np.array(values)
    spread = f" ± {values.std(ddof=1):.{digits}f}" if len(values) > 1 else ""
    return f"{values.mean():.{digits}f}{spread}"


if __name__ == "__main__":
    command.run(main)
