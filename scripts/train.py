"""Train a diffusion model on flowers: a command line over diffusion.training."""

import os
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
    add(
        "--data-dir",
        help="folder of flowers, or the word 'painted' (default: the environment's "
        "DATA_DIR, or what is under data/, or painted flowers)",
    )
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
    return parser.parse_args()


def main():
    arguments = parse_arguments()
    from diffusion.config import get_preset

    names = ("epochs", "seed", "learning_rate", "precision")
    given = {name: getattr(arguments, name) for name in names}
    config = get_preset(
        arguments.preset, **{name: value for name, value in given.items() if value is not None}
    )
    if arguments.max_steps is not None and arguments.max_steps < 1:
        command.fail(f"--max-steps must be 1 or more, got {arguments.max_steps}")
    command.load_keras()
    import keras

    from diffusion.data import load_flowers
    from diffusion.training import default_folder, train

    flowers = load_flowers(
        arguments.data_dir or os.environ.get("DATA_DIR") or None,
        config.image_size,
        config.fit,
        painted=config.painted,
        seed=config.seed,
        progress=sys.stderr.isatty(),
    )
    folder = arguments.output or default_folder(config, flowers)
    print(f"preset {config.name} on {flowers.description}; model and samples in {folder}")
    run = train(
        config,
        flowers,
        folder,
        resume=arguments.resume,
        max_steps=arguments.max_steps,
        sample_every=arguments.sample_every,
        tensorboard=keras.backend.backend() == "tensorflow",  # under JAX it would take the GPU
        verbose=1 if sys.stdout.isatty() else 2,
    )
    steps = run.record["steps"]
    if run.interrupted:
        print(f"stopped after step {steps}, saved in {folder}: go on with --resume")
        return 130
    print(f"{run.caption}; saved in {folder / 'model.keras'}")
    return 0


if __name__ == "__main__":
    command.run(main)
