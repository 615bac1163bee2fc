"""Train a diffusion model on flowers: a command line over diffusion.training.loop."""

import sys
from pathlib import Path

import command


def parse_arguments():
    parser = command.Parser(
        description="Train a diffusion model on flowers. Writes a checkpoint after each epoch; "
        "when it was stopped, by whatever, the same call with --resume goes on.",
    )
    add = parser.add_argument
    add(
        "--preset",
        default="quick",
        help="book: the chapter's numbers; quick: minutes on two CPU cores; laptop: an hour; "
        "tiny: seconds, for tests (default: %(default)s)",
    )
    parser.add_data_dir()
    add(
        "--output",
        type=Path,
        help="folder for the model, its record, samples/ and logs/ (default: "
        "models/PRESET-DATA; an existing model is never overwritten)",
    )
    add("--epochs", type=int, help="epochs in all (default: the preset's)")
    add("--max-steps", type=int, help="stop after this many steps in all")
    add("--resume", action="store_true", help="go on from --output's checkpoint, if there is one")
    add("--seed", type=int, help="where all random choices come from (default: the preset's)")
    add("--learning-rate", type=float, help="of AdamW (default: the preset's)")
    add(
        "--precision",
        help="auto (what this machine is fast at), float32 or mixed_bfloat16 (default: the "
        "preset's)",
    )
    add(
        "--sample-every",
        type=int,
        default=1,
        metavar="EPOCHS",
        help="epochs between sample grids; 0: none (default: %(default)s)",
    )
    add("--batch-size", type=int, help="pictures a step, of all devices (default: the preset's)")
    group = parser.add_argument_group("what is learnt (notebooks/beyond/07_ddpm.ipynb)")
    add = group.add_argument
    add("--objective", help="what the network says: noise, image or velocity (default: noise)")
    add("--loss", help="mean_absolute_error or mean_squared_error (default: the former)")
    add(
        "--loss-weighting",
        metavar="WEIGHTING",
        help="how errors count by signal-to-noise: none, p2 or min_snr, which are meant for "
        "squared errors (default: none)",
    )
    add(
        "--self-conditioning",
        action="store_true",
        default=None,
        help="show the network its own earlier estimate of the image",
    )
    group = parser.add_argument_group("on several GPUs or machines (docs/distributed.md)")
    add = group.add_argument
    add("--distribute", action="store_true", help="train on all GPUs of this machine as on one")
    add(
        "--coordinator",
        metavar="HOST:PORT",
        help="several machines: where process 0 is, and a free port there (default: the "
        "environment's KERAS_DISTRIBUTION_JOB_ADDRESSES)",
    )
    add(
        "--num-processes",
        type=int,
        metavar="N",
        help="how many processes there are, usually one a machine (default: the environment's "
        "KERAS_DISTRIBUTION_NUM_PROCESSES)",
    )
    add(
        "--process-id",
        type=int,
        metavar="I",
        help="which of them this is, 0 to N - 1 (default: the environment's "
        "KERAS_DISTRIBUTION_PROCESS_ID)",
    )
    add(
        "--peer-timeout",
        type=float,
        default=300,
        metavar="SECONDS",
        help="how long to wait for the others to come (default: %(default)s)",
    )
    return parser.parse_args()


def main():
    arguments = parse_arguments()
    from diffusion.training.config import get_preset

    names = ("epochs", "seed", "learning_rate", "precision", "batch_size")
    names += ("objective", "loss", "loss_weighting", "self_conditioning")
    given = {name: getattr(arguments, name) for name in names}
    config = get_preset(
        arguments.preset, **{name: value for name, value in given.items() if value is not None}
    )
    if arguments.max_steps is not None and arguments.max_steps < 1:
        command.fail(f"--max-steps must be 1 or more, got {arguments.max_steps}")
    if not arguments.distribute:
        for name in ("coordinator", "num_processes", "process_id"):
            if getattr(arguments, name) is not None:
                command.fail(f"--{name.replace('_', '-')} goes with --distribute")
        command.load_keras()
        return run(arguments, config)
    from diffusion.training import distribution, supervisor

    place = distribution.addresses(
        arguments.coordinator, arguments.num_processes, arguments.process_id
    )
    if place[1] > 1:
        status = supervisor.supervise(*place, arguments.peer_timeout)
        if status is not None:
            return status
    command.load_keras()
    with distribution.start(*place, arguments.peer_timeout) as devices:
        print(f"distributed: {devices}", flush=True)
        return run(arguments, config)


def run(arguments, config):
    """Train as `arguments` and `config` say, and report; return the exit status."""
    import keras

    from diffusion.data.flowers import load_flowers
    from diffusion.support.precision import choose_precision
    from diffusion.training.distribution import is_first
    from diffusion.training.loop import default_folder, train

    flowers = load_flowers(
        arguments.data_dir,
        config.image_size,
        config.fit,
        painted=config.painted,
        seed=config.seed,
        progress=sys.stderr.isatty(),
    )
    folder = arguments.output or default_folder(config, flowers)
    precision = choose_precision(config.precision)
    print(f"preset {config.name} on {flowers.description}; network in {precision}")
    print(f"model and samples in {folder}")
    trained = train(
        config,
        flowers,
        folder,
        resume=arguments.resume,
        max_steps=arguments.max_steps,
        sample_every=arguments.sample_every,
        tensorboard=keras.backend.backend() == "tensorflow",  # under JAX it would take the GPU
        verbose=1 if sys.stdout.isatty() else 2,
    )
    if not is_first():
        print(f"process 0 keeps the model, in {folder}")
        return 130 if trained.interrupted else 0
    steps = trained.record["steps"]
    if trained.interrupted:
        print(f"stopped after step {steps}, saved in {folder}: go on with --resume")
        return 130
    print(f"{trained.caption}; saved in {folder / 'model.keras'}")
    return 0


if __name__ == "__main__":
    command.run(main)
