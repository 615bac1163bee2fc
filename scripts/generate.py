"""Generate flowers with a trained model."""

import command

from diffusion.support.registry import names_in

EVENLY_IN_TIME = ("ddim", "ddpm", "ddpm_large")  # samplers without a choice of spacing


def parse_arguments():
    parser = command.Parser(description="Generate flowers with a trained model.")
    add = parser.add_argument
    parser.add_model()
    parser.add_count("--num-images", 10, "number of images")
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
        "row of this many images (10 if no number is given)",
    )
    parser.add_file("--output", command.writable(), "generated.png", "the picture file to write")
    return check(parser, parser.parse_args())


def check(parser, arguments):
    """Refuse options that do not go together; return the others."""
    sampler = arguments.sampler
    if arguments.eta and sampler != "ddim":
        parser.error(f"--eta {arguments.eta} goes with --sampler ddim, not {sampler}")
    if arguments.spacing and sampler in EVENLY_IN_TIME:
        parser.error(f"--spacing {arguments.spacing}: {sampler} steps evenly in time; leave it out")
    if arguments.interpolate and arguments.num_images < 2:
        parser.error("--interpolate walks between images: it needs --num-images 2 or more, got 1")
    return arguments


def main():
    arguments = parse_arguments()
    command.load_keras()
    from tqdm import tqdm

    from diffusion.latents import initial_noise, walks
    from diffusion.samplers import SAMPLERS
    from diffusion.support.files import save_image_grid
    from diffusion.training.export import SHIPPED, load_for_inference

    path = arguments.model or SHIPPED
    model = load_for_inference(path)
    options = {"eta": arguments.eta, "spacing": arguments.spacing}
    columns = arguments.interpolate
    noise = initial_noise(arguments.num_images, model.image_size, arguments.seed)
    noise = walks(noise, columns) if columns else noise
    with tqdm(total=arguments.steps, desc="steps", disable=None) as bar:
        images = model.generate(
            initial_noise=noise,
            steps=arguments.steps,
            seed=arguments.seed,
            sampler=SAMPLERS[arguments.sampler],
            threshold=arguments.threshold,
            on_step=lambda *_: bar.update(),
            **{name: value for name, value in options.items() if value},
        )
    save_image_grid(arguments.output, images, columns, scale=max(1, 128 // model.image_size))
    print(
        f"{len(images)} images from {path}, {arguments.steps} steps of {arguments.sampler}: "
        f"{arguments.output}"
    )


if __name__ == "__main__":
    command.run(main)
