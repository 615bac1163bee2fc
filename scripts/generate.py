"""Draw flowers with a trained model: a command line over diffusion."""

import inspect
from pathlib import Path

import command

ROOT = Path(__file__).resolve().parents[1]


def parse_arguments():
    parser = command.Parser(description="Draw flowers with a trained model.")
    add = parser.add_argument
    parser.add_model()
    add("--num-images", type=int, default=10, help="how many pictures (default: %(default)s)")
    add("--steps", type=int, default=20, help="steps of the sampler (default: %(default)s)")
    add(
        "--sampler",
        default="ddim",
        metavar="NAME",
        help="a name in diffusion/samplers.py: ddim, ddpm, heun, dpm_solver, ... (a wrong name "
        "lists them all); dpm_solver needs the fewest steps, 10 say (default: %(default)s, the "
        "chapter's)",
    )
    add(
        "--spacing",
        metavar="NAME",
        help="how the steps are laid, for samplers that can choose: log_snr or time",
    )
    add(
        "--threshold",
        type=float,
        metavar="SHARE",
        help="dynamic thresholding: keep predicted pictures to the range of pixels, but for this "
        "share of them, 0.995 say (default: off)",
    )
    add(
        "--eta",
        type=float,
        default=0.0,
        help="with ddim: fresh noise in each step, from 0 (none) to 1 (as much as ddpm) "
        "(default: %(default)s)",
    )
    add("--seed", type=int, default=0, help="the same seed draws the same (default: %(default)s)")
    add(
        "--interpolate",
        type=int,
        nargs="?",
        const=10,
        metavar="PICTURES",
        help="walk on the sphere between pairs of flowers instead: --num-images walks, each a row "
        "of so many pictures (if none is given: 10)",
    )
    add(
        "--output",
        type=Path,
        default=ROOT / "build" / "generated.png",
        help="the picture file to write (default: build/generated.png)",
    )
    return parser.parse_args()


def check(arguments):
    """Refuse, before any work is done, what could only fail after it."""
    from PIL import Image

    formats = Image.registered_extensions()
    if formats.get(arguments.output.suffix.lower()) not in Image.SAVE:
        command.fail(f"--output {arguments.output}: name a picture file, such as flowers.png")
    for name, least in (("num_images", 1), ("steps", 1), ("interpolate", 2), ("seed", 0)):
        value = getattr(arguments, name)
        if value is not None and value < least:
            command.fail(f"--{name.replace('_', '-')} must be {least} or more, got {value}")
    if arguments.threshold is not None and not 0 < arguments.threshold <= 1:
        command.fail(f"--threshold must be above 0 and at most 1, got {arguments.threshold}")
    if not 0 <= arguments.eta <= 1:
        command.fail(f"--eta must be between 0 and 1, got {arguments.eta}")
    if arguments.eta and arguments.sampler != "ddim":
        command.fail(f"--eta {arguments.eta} goes with --sampler ddim, not {arguments.sampler}")


def choose_sampler(arguments, samplers):
    """Return the sampler of that name and its options, or refuse what it does not take."""
    if arguments.sampler not in samplers:
        choices = ", ".join(samplers)
        command.fail(f"no sampler {arguments.sampler!r}: choose one of {choices}")
    sampler = samplers[arguments.sampler]
    options = {"eta": arguments.eta} if arguments.eta else {}
    if arguments.spacing:
        if "spacing" not in inspect.signature(sampler).parameters:
            command.fail(
                f"--spacing {arguments.spacing}: {arguments.sampler} steps evenly in time; "
                "leave it out"
            )
        options["spacing"] = arguments.spacing
    return sampler, options


def main():
    arguments = parse_arguments()
    check(arguments)
    command.load_keras()
    from tqdm import tqdm

    from diffusion.latents import initial_noise, walks
    from diffusion.samplers import SAMPLERS
    from diffusion.support.files import save_image_grid
    from diffusion.training.export import SHIPPED, load_for_inference

    sampler, options = choose_sampler(arguments, SAMPLERS)
    path = arguments.model or SHIPPED
    model = load_for_inference(path)
    columns = None
    noise = initial_noise(arguments.num_images, model.image_size, arguments.seed)
    if arguments.interpolate:
        columns = arguments.interpolate
        noise = walks(noise, columns)
    with tqdm(total=arguments.steps, desc="steps", disable=None) as bar:
        images = model.generate(
            initial_noise=noise,
            steps=arguments.steps,
            seed=arguments.seed,
            sampler=sampler,
            threshold=arguments.threshold,
            on_step=lambda *_: bar.update(),
            **options,
        )
    save_image_grid(arguments.output, images, columns, scale=max(1, 128 // model.image_size))
    print(
        f"{len(images)} pictures by {path}, {arguments.steps} steps of "
        f"{arguments.sampler}: {arguments.output}"
    )


if __name__ == "__main__":
    command.run(main)
