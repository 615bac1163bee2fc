"""Train a diffusion model on flowers: a command line over diffusion.training.loop."""

import argparse
import signal
import sys

import command

from diffusion.data.folders import SPLITS
from diffusion.support.paths import models_home
from diffusion.support.precision import PRECISIONS
from diffusion.support.registry import names_in
from diffusion.training.config import LOSSES, PRESETS, get_preset

CHANGES = ("epochs", "half_size_epochs", "seed", "learning_rate", "precision", "batch_size")
CHANGES += ("objective", "loss", "loss_weighting", "self_conditioning")
CHANGES += ("network", "labels", "label_dropout", "gradient_norm")


def parse_arguments():
    parser = command.Parser(
        description="Train a diffusion model on flowers. A checkpoint is written after each epoch, "
        "and when the run is interrupted (Ctrl-C, SIGTERM, SIGHUP). To continue an interrupted "
        "run, add --resume. What is not given is the preset's."
    )
    add = parser.add_argument
    add(
        "--preset",
        type=command.one_of(PRESETS),
        default="quick",
        help="book: the chapter's numbers; quick: minutes on two CPU cores; laptop: an hour; "
        "named: half an hour, the modern network with the flowers' names; tiny: seconds, for tests "
        "(default: %(default)s)",
    )
    parser.add_data_dir()
    words = "train on these splits of the data alone: train, valid or test (default: all)"
    add("--splits", type=command.one_of(SPLITS), nargs="+", metavar="SPLIT", help=words)
    add(
        "--output",
        type=command.writable_folder,
        help="folder for the model, its record, samples/ and logs/ (default: models/PRESET-DATA; "
        "an existing model is never overwritten)",
    )
    count, rate = command.number(least=1), command.number(float, above=0)
    add("--epochs", type=count, help="epochs in all")
    words = "how many of them come first at half the resolution (default: the preset's share)"
    add("--half-size-epochs", type=command.number(least=0), metavar="EPOCHS", help=words)
    add("--max-steps", type=count, help="stop after this many steps in all")
    add("--resume", action="store_true", help="continue from --output's checkpoint, if it has one")
    words = "begin with the weights of this model, a run's folder or a .keras file, which has the "
    words += "same network and names (default: random weights)"
    add("--start-from", type=command.model, metavar="MODEL", help=words)
    add("--seed", type=command.SEED, help="seed of all random choices")
    add("--learning-rate", type=rate, help="of AdamW")
    words = f"{', '.join(PRECISIONS)}; auto is what this machine is fast at"
    add("--precision", type=command.one_of(PRECISIONS), help=words)
    parser.add_count("--sample-every", 1, "epochs between sample grids; 0: none", least=0)
    add("--batch-size", type=count, help="images per step, over all devices")
    words = "shorten a longer gradient of all weights to this length; 0 keeps all"
    add("--gradient-norm", type=command.number(float, least=0), metavar="LENGTH", help=words)
    add_target(parser.add_argument_group("what is learnt (notebooks/beyond/07_ddpm.ipynb)"))
    add_names(parser.add_argument_group("flowers by name (notebooks/beyond/11_guidance.ipynb)"))
    add_devices(parser.add_argument_group("on several GPUs or machines (docs/distributed.md)"))
    return parser.parse_args()


def add_target(group):
    """Add the options of notebook 07."""
    weightings = ("none", *names_in("objectives", "WEIGHTINGS"))
    objectives = names_in("objectives", "OBJECTIVES")
    add = group.add_argument
    words = f"what the network predicts: {', '.join(objectives)} (in the chapter: noise)"
    add("--objective", type=command.one_of(objectives), help=words)
    add(
        "--loss",
        type=command.one_of(LOSSES),
        help=f"{' or '.join(LOSSES)} (in the chapter: the former)",
    )
    add(
        "--loss-weighting",
        type=command.one_of(weightings),
        metavar="WEIGHTING",
        help=f"weight of an error by signal-to-noise ratio: {', '.join(weightings)}; meant for "
        "squared errors (in the chapter: none)",
    )
    words = "feed the network its own earlier estimate of the image"
    add("--self-conditioning", action="store_true", default=None, help=words)


def add_names(group):
    """Add the options of notebook 11."""
    networks = names_in("training.building", "NETWORKS")
    words = f"one of {', '.join(networks)} (in the chapter: {networks[0]})"
    group.add_argument("--network", type=command.one_of(networks), help=words)
    words = "learn the flowers' names, too: what generate.py --label asks for"
    group.add_argument("--labels", action=argparse.BooleanOptionalAction, help=words)
    words = "share of names withheld at each step, at least 0 and below 1: guidance needs some"
    kind = command.number(float, least=0)
    group.add_argument("--label-dropout", type=kind, metavar="SHARE", help=words)


def add_devices(group):
    """Add the options of distributed training."""
    add, default = group.add_argument, "(default: the environment's KERAS_DISTRIBUTION_{})"
    add("--distribute", action="store_true", help="train on all GPUs of this machine as on one")
    add(
        "--coordinator",
        metavar="HOST:PORT",
        help="several machines: the host of process 0 and a free port there "
        + default.format("JOB_ADDRESSES"),
    )
    words = "number of processes, usually one per machine " + default.format("NUM_PROCESSES")
    add("--num-processes", type=int, metavar="N", help=words)
    words = "number of this process, 0 to N - 1 " + default.format("PROCESS_ID")
    add("--process-id", type=int, metavar="I", help=words)
    add(
        "--peer-timeout",
        type=command.number(float, above=0),
        default=300,
        metavar="SECONDS",
        help="how long to wait for the other processes (default: %(default)s)",
    )


def main():
    arguments = parse_arguments()
    given = {name: getattr(arguments, name) for name in CHANGES}
    config = get_preset(
        arguments.preset, **{name: value for name, value in given.items() if value is not None}
    )
    if arguments.label_dropout is not None and not config.labels:
        command.fail("--label-dropout goes with --labels")
    if arguments.output is None:
        command.writable_folder(models_home())
    if not arguments.distribute:
        for name in ("coordinator", "num_processes", "process_id"):
            if getattr(arguments, name) is not None:
                command.fail(f"--{name.replace('_', '-')} goes with --distribute")
        command.load_keras()
        return run(arguments, config)
    from diffusion.training import distribution, supervisor
    from diffusion.training.rendezvous import addresses

    place = addresses(arguments.coordinator, arguments.num_processes, arguments.process_id)
    if place[1] > 1:
        status = supervisor.supervise(*place, arguments.peer_timeout)
        if status is not None:  # None: this is the child, which trains
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
    from diffusion.training.distribution import is_main_process
    from diffusion.training.loop import default_folder, train

    flowers = load_flowers(
        arguments.data_dir,
        config.image_size,
        config.fit,
        painted=config.painted,
        seed=config.seed,
        splits=arguments.splits,
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
        start_from=arguments.start_from,
        resume=arguments.resume,
        max_steps=arguments.max_steps,
        sample_every=arguments.sample_every,
        tensorboard=keras.backend.backend() == "tensorflow",  # under JAX it would take the GPU
        verbose=1 if sys.stdout.isatty() else 2,
    )
    if not is_main_process():
        print(f"process 0 has saved the model in {folder}")
    elif trained.interrupted:
        by = f" by {signal.Signals(trained.signal).name}" if trained.signal else ""
        steps = trained.record["steps"]
        saved = f"after step {steps}, saved in {folder}: continue with --resume"
        print(f"stopped{by} {saved if steps else 'before the first step: nothing to save'}")
    else:
        print(f"{trained.caption}; saved in {folder / 'model.keras'}")
    return 128 + (trained.signal or signal.SIGINT) if trained.interrupted else 0


if __name__ == "__main__":
    command.run(main)
