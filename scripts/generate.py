"""Generate flowers with a trained model, by name if it knows names."""

import argparse
from pathlib import Path

import command

from diffusion.support.paths import SHIPPED, SHIPPED_BY_NAME, shipped
from diffusion.support.registry import names_in

EVENLY_IN_TIME = ("ddim", "ddpm", "ddpm_large")  # samplers without a choice of spacing


def parse_arguments():
    parser = command.Parser(description="Generate flowers with a trained model.")
    add = parser.add_argument
    parser.add_model(default=SHIPPED_BY_NAME.name)
    add_names(parser)
    words = "number of images, of each name that is given (default: 10; with --label all 1)"
    add("--num-images", type=command.number(least=1), help=words)
    parser.add_count("--steps", 20, "number of sampling steps")
    samplers, spacings = names_in("samplers", "SAMPLERS"), names_in("flow", "SPACINGS")
    words = f"one of {', '.join(samplers)}; dpm_solver needs the fewest steps, about 10 "
    words += "(default: %(default)s, the chapter's)"
    add("--sampler", type=command.one_of(samplers), default="ddim", metavar="NAME", help=words)
    words = f"how to space the steps, for samplers that can choose: {' or '.join(spacings)}"
    add("--spacing", type=command.one_of(spacings), metavar="NAME", help=words)
    share = command.number(float, above=0, most=1)
    words = "dynamic thresholding: keep this share of the predicted pixels, such as 0.995, within "
    words += "the range of images (default: off)"
    add("--threshold", type=share, metavar="SHARE", help=words)
    words = "with ddim: noise added at each step, from 0 (none) to 1 (as much as ddpm) (default: 0)"
    add("--eta", type=command.number(float, least=0, most=1), default=0.0, help=words)
    parser.add_seed()
    add(
        "--interpolate",
        type=command.number(least=2),
        nargs="?",
        const=10,
        metavar="IMAGES",
        help="walk on the sphere from each flower to the next, --num-images walks in all, each a "
        "row of this many images (10 if no number is given); with --label, one name for all",
    )
    parser.add_file("--output", command.writable(), "generated.png", "the picture file to write")
    return check(parser, parser.parse_args())


def add_names(parser):
    """Take what is to be drawn, and how closely."""
    words = "what to draw: names of flowers, such as sunflower or 'water lily', or their numbers; "
    words += "'all' draws one of each, 'list' prints numbers and names (default: names drawn at "
    words += "random by --seed; with --interpolate, no names). Several names are written below "
    words += "the images"
    parser.add_argument("--label", nargs="+", action="extend", metavar="NAME", help=words)
    words = "how much images should fit their names: 1 as the model learned it, more for clearer "
    words += f"and less varied flowers, 0 not at all (default: {command.GUIDANCE:g})"
    parser.add_guidance(words)
    words = "a classifier of noisy images (default: the one that ships), by which a model without "
    words += f"names, by default {SHIPPED.name}, draws flowers by name"
    ours = str(shipped("noisy-classifier-64.keras"))
    parser.add_argument(
        "--classifier", type=classifier, nargs="?", const=ours, metavar="FILE", help=words
    )


def classifier(text):
    """An argparse type: the file of a classifier of noisy images."""
    if not Path(text).is_file():
        advice = "train one with scripts/train_noisy_classifier.py"
        raise argparse.ArgumentTypeError(f"no classifier at {text}: {advice}")
    return command.model(text)


def check(parser, arguments):
    """Refuse options that do not go together; return the others."""
    sampler, asked = arguments.sampler, arguments.label or []
    if arguments.eta and sampler != "ddim":
        parser.error(f"--eta {arguments.eta} goes with --sampler ddim, not {sampler}")
    if arguments.spacing and sampler in EVENLY_IN_TIME:
        parser.error(f"--spacing {arguments.spacing}: {sampler} steps evenly in time; leave it out")
    if {"all", "list"} & set(asked) and len(asked) > 1:
        parser.error(f"--label {' '.join(asked)}: 'all' and 'list' go alone")
    if arguments.num_images is None:
        arguments.num_images = 1 if asked == ["all"] else 10
    if arguments.interpolate and arguments.num_images < 2:
        parser.error("--interpolate walks between images: it needs --num-images 2 or more, got 1")
    parser.check_guidance(arguments)
    return arguments


def choose_labels(arguments, path, names):
    """Return the number of the name of each image, or None to draw without names."""
    import numpy as np

    from diffusion.labels import label_numbers

    asked, count = arguments.label, arguments.num_images
    if not names or (arguments.interpolate and not asked):
        source = arguments.classifier or path
        why = "" if names else f": {source} has none, so name a --model trained with them"
        for option in ("label", "guidance", "guidance_interval", "classifier"):
            if getattr(arguments, option) is not None:
                wanted = "a --label with --interpolate" if names else "names"
                command.fail(f"--{option.replace('_', '-')} needs {wanted}{why}")
        return None
    if not asked:
        return np.resize(np.random.default_rng(arguments.seed).permutation(len(names)), count)
    wanted = [command.number_or_name(name, names) for name in asked]
    wanted = range(len(names)) if asked == ["all"] else wanted
    try:
        numbers = label_numbers(wanted, names)
    except ValueError as error:
        command.fail(f"{error} (--label list prints all names)")
    if arguments.interpolate and len(numbers) > 1:
        command.fail(f"--interpolate walks with one --label, got {len(numbers)}")
    return np.repeat(numbers, count * (arguments.interpolate or 1))


def main():
    arguments = parse_arguments()
    path = arguments.model or (SHIPPED if arguments.classifier else SHIPPED_BY_NAME)
    names = command.class_names(arguments.classifier or path)
    if arguments.label == ["list"] and names:
        return print("\n".join(f"{number:3}  {name}" for number, name in enumerate(names)))
    labels = choose_labels(arguments, path, names)
    command.load_keras()
    from diffusion.support.files import save_image_grid
    from diffusion.training.export import load_for_inference

    model = load_for_inference(path)
    images = generate(arguments, model, labels)
    several = labels is not None and len(set(labels)) > 1
    written = [names[label] for label in labels] if several and arguments.guidance != 0 else None
    columns, scale = arguments.interpolate, max(1, 128 // model.image_size)
    if 1 < arguments.num_images < 10:  # then each name has a row
        columns = columns or arguments.num_images
    save_image_grid(arguments.output, images, columns, scale, written)
    print(
        f"{len(images)} images from {path}, {arguments.steps} steps of {arguments.sampler}: "
        f"{arguments.output}"
    )


def generate(arguments, model, labels):
    """Generate the images, with a progress bar."""
    from tqdm import tqdm

    from diffusion.latents import initial_noise, walks
    from diffusion.samplers import SAMPLERS

    options = {"eta": arguments.eta, "spacing": arguments.spacing}
    options = {name: value for name, value in options.items() if value}
    if labels is not None:
        options |= {"labels": labels, "guidance_interval": arguments.guidance_interval}
        scale = arguments.guidance
        options["guidance"] = command.GUIDANCE if scale is None else scale
    if arguments.classifier:
        from diffusion.noisy_classifier import load_noisy_classifier

        options["classifier"] = load_noisy_classifier(arguments.classifier)
    columns, count = arguments.interpolate, arguments.num_images
    if labels is not None and not columns:
        count = len(labels)
    noise = initial_noise(count, model.image_size, arguments.seed)
    with tqdm(total=arguments.steps, desc="steps", disable=None) as bar:
        return model.generate(
            initial_noise=walks(noise, columns) if columns else noise,
            steps=arguments.steps,
            seed=arguments.seed,
            sampler=SAMPLERS[arguments.sampler],
            threshold=arguments.threshold,
            on_step=lambda *_: bar.update(),
            **options,
        )


if __name__ == "__main__":
    command.run(main)
