"""Edit photographs with a trained model: invert, walk, inpaint and redraw them."""

from pathlib import Path

import command

from diffusion.support.paths import SHIPPED_BY_NAME

ACTIONS = {
    "invert": "find the noise of each photograph, and draw it again from that noise",
    "walk": "walk from each photograph to the next, or from a single one to a drawn flower",
    "inpaint": "draw the white part of a mask anew",
    "redraw": "redraw photographs by strength, or (--from and --to) under another name",
}
STRENGTH = 0.6


def parse_arguments():
    parser = command.Parser(description="Edit photographs with a trained model.")
    words = "one of these; each has its own --help"
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION", help=words)
    for action, words in ACTIONS.items():
        one = actions.add_parser(action, help=words, description=f"{words[0].upper()}{words[1:]}.")
        add_photographs(one, action)
        if action == "walk":
            one.add_count("--images", 9, "number of images on each walk", least=2)
        if action == "inpaint":
            add_mask(one)
        if action == "redraw":
            words = "how freely to redraw, from 0 (not at all) to 1 (the photograph is forgotten) "
            share = command.number(float, least=0, most=1)
            words += f"(default: {STRENGTH}, unless --from is given)"
            one.add_argument("--strength", type=share, metavar="SHARE", help=words)
        add_names(one, action)
        one.add_count("--steps", 20, "number of sampling steps")
        if action != "invert":
            one.add_seed()
        one.add_file("--output", command.writable(), f"{action}.png", "the picture file to write")
    return check(parser, parser.parse_args())


def add_photographs(parser, action):
    """Take the photographs, what to take of them, and the model."""
    kind = {"nargs": "+"} if action != "inpaint" else {}
    words = "picture file: JPEG, PNG, WebP, TIFF, GIF or BMP"
    parser.add_argument("photographs", type=Path, metavar="PHOTO", help=words, **kind)
    words = "the square to take, in pixels of the upright photograph (default: the middle)"
    place = ("LEFT", "TOP", "SIDE")
    parser.add_argument("--crop", type=command.number(least=0), nargs=3, metavar=place, help=words)
    parser.add_model(default=SHIPPED_BY_NAME.name)


def add_mask(parser):
    words = "picture file, white where to draw: as large as the photograph, or a square that covers"
    words += " what is cropped"
    parser.add_argument("--mask", type=Path, required=True, metavar="FILE", help=words)
    parser.add_count("--resamplings", 5, "how often to draw each noise level, to fit what is kept")


def add_names(parser, action):
    """Take the name of what is in the photographs, and of what to draw."""
    if action != "inpaint":
        words = "the name of the flower in the photographs, or its number; with redraw: find their "
        words += "noise under this name, and draw from it under --to (default: no name)"
        parser.add_argument("--from", dest="source", metavar="NAME", help=words)
    if action in ("inpaint", "redraw"):
        words = "the name of the flower to draw, or its number (default: no name)"
        parser.add_argument("--to", dest="target", metavar="NAME", help=words)
        words = f"how much what is drawn should fit --to (default: {command.GUIDANCE:g})"
        parser.add_guidance(words)


def check(parser, arguments):
    """Refuse options that do not go together and pictures that cannot be read."""
    for option in ("source", "target", "strength", "guidance", "guidance_interval", "mask"):
        setattr(arguments, option, getattr(arguments, option, None))
    if arguments.action == "inpaint":
        arguments.photographs = [arguments.photographs]
    if arguments.action == "redraw" and arguments.source is not None:
        if arguments.target is None:
            parser.error("--from needs --to: under which name should it be drawn?")
        if arguments.strength is not None:
            parser.error("--strength and --from are two ways to redraw: leave one out")
    for option in ("guidance", "guidance_interval"):
        if getattr(arguments, option) is not None and arguments.target is None:
            parser.error(f"--{option.replace('_', '-')} needs --to")
    parser.check_guidance(arguments)
    read_pictures(arguments, 64)  # whatever size the model has: mistakes are reported at once
    command.check_not_source(arguments.output, *arguments.photographs, arguments.mask)
    return arguments


def read_pictures(arguments, size):
    """Return the photographs (N, size, size, 3), and the mask (size, size) or None."""
    import numpy as np

    from diffusion.data.photographs import read_mask, read_photograph

    paths, crop, mask = arguments.photographs, arguments.crop, arguments.mask
    try:
        photographs = np.stack([read_photograph(path, size, crop) for path in paths])
        mask = None if mask is None else read_mask(mask, size, paths[0], crop)
    except (ValueError, OSError) as error:
        command.fail(str(error))
    if mask is not None and not mask.any():
        command.fail(f"nothing to draw: {arguments.mask} has no white part at {size}x{size} pixels")
    return photographs, mask


def number_of(name, path):
    """Return the number of a name that the model knows; None for None."""
    from diffusion.labels import label_numbers

    if name is None:
        return None
    names = command.class_names(path)
    try:
        return int(label_numbers([command.number_or_name(name, names)], names)[0])
    except ValueError as error:
        advice = f" (name a --model trained with names, not {path})"
        more = " (scripts/generate.py --label list prints all names)" if names else advice
        command.fail(f"{error}{more}")


def invert(arguments, model, photographs, mask, source, target):
    """Find the noises and draw from them; print what is left of the difference."""
    import numpy as np

    from diffusion.inversion import chance, find_noise, gaussian_check

    noises = find_noise(model, photographs, arguments.steps, labels=source)
    drawn = model.generate(initial_noise=noises, steps=arguments.steps, labels=source)
    found, expected = gaussian_check(noises), chance(noises.shape)
    for index, path in enumerate(arguments.photographs):
        error = 255 * np.sqrt(np.mean((drawn[index] - photographs[index] / 255) ** 2))
        words = ", ".join(f"{name} {found[name][index]:.3f}" for name in found)
        print(f"{path.name}: drawn again with an error of {error:.1f} of 255; its noise: {words}")
    usual = zip(found, (0, 1, 0), strict=True)
    words = ", ".join(f"{name} {middle} ± {expected[name]:.3f}" for name, middle in usual)
    print(f"drawn noise: {words}")
    seen = np.clip(0.5 + np.asarray(noises) / 6, 0, 1)
    return beside(photographs, {"its noise": seen, "drawn again": drawn})


def walk(arguments, model, photographs, mask, source, target):
    """Walk from each photograph to the next, or from a single one to a drawn flower."""
    import numpy as np

    from diffusion import editing
    from diffusion.inversion import find_noise
    from diffusion.latents import initial_noise

    steps, count = arguments.steps, arguments.images
    noises = np.asarray(find_noise(model, photographs, steps, labels=source))
    places = [path.stem for path in arguments.photographs]
    if len(noises) == 1:
        drawn = initial_noise(1, model.image_size, arguments.seed)
        noises, places = np.concatenate([noises, drawn]), [*places, "drawn"]
    rows, names = [], []
    for index in range(len(places) - 1):
        ends = noises[index], noises[index + 1]
        walked = editing.walk(model, *ends, count, steps, labels=source)
        last = walked[-1] if index + 1 == len(photographs) else photographs[index + 1] / 255
        rows += [photographs[index] / 255, *walked, last]
        names += [places[index], *[""] * count, places[index + 1]]
    return np.stack(rows), count + 2, names


def inpaint(arguments, model, photographs, mask, source, target):
    """Draw the masked part anew."""
    import numpy as np

    from diffusion import inpainting

    drawn = inpainting.inpaint(
        model,
        photographs,
        mask,
        arguments.steps,
        arguments.seed,
        arguments.resamplings,
        **guidance(arguments, target),
    )
    kept = np.where(mask[..., None], 0.5, photographs / 255)
    return beside(photographs, {"kept": kept, "drawn": drawn})


def redraw(arguments, model, photographs, mask, source, target):
    """Redraw by strength, or under another name."""
    from diffusion import editing

    options = guidance(arguments, target)
    if arguments.source is not None:
        del options["labels"]
        drawn = editing.rename(model, photographs, source, target, arguments.steps, **options)
        return beside(photographs, {model.class_names[target]: drawn})
    strength = STRENGTH if arguments.strength is None else arguments.strength
    drawn = editing.redraw(model, photographs, strength, arguments.steps, arguments.seed, **options)
    return beside(photographs, {f"strength {strength:g}": drawn})


def guidance(arguments, target):
    """Return the options for `generate` that draw flowers of a name, {} without a name."""
    if target is None:
        return {}
    scale = command.GUIDANCE if arguments.guidance is None else arguments.guidance
    return {
        "labels": target,
        "guidance": scale,
        "guidance_interval": arguments.guidance_interval,
    }


def beside(photographs, others):
    """Return images with a row for each photograph, the number of columns, and their names."""
    import numpy as np

    rows = np.stack([photographs / 255, *others.values()], axis=1)
    names = ["photograph", *others] * len(photographs)
    return rows.reshape(-1, *photographs.shape[1:]), 1 + len(others), names


def main():
    arguments = parse_arguments()
    path = arguments.model or SHIPPED_BY_NAME
    source = number_of(arguments.source, path)
    target = number_of(arguments.target, path)
    command.load_keras()
    from diffusion.support.files import save_image_grid
    from diffusion.training.export import load_for_inference

    model = load_for_inference(path)
    photographs, mask = read_pictures(arguments, model.image_size)
    edit = {"invert": invert, "walk": walk, "inpaint": inpaint, "redraw": redraw}[arguments.action]
    images, columns, names = edit(arguments, model, photographs, mask, source, target)
    scale = max(1, 128 // model.image_size)
    save_image_grid(arguments.output, images, columns, scale, names)
    print(f"{arguments.action}, {arguments.steps} steps with {path}: {arguments.output}")


if __name__ == "__main__":
    command.run(main)
