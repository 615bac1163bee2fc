"""What the command lines share: options, errors in one line, no chatter from TensorFlow."""

import argparse
import os
import sys
from operator import ge, gt, le, lt
from pathlib import Path


def number(kind=int, least=None, most=None, above=None, below=None):
    """Return an argparse type: a number of `kind` (int or float) within the given bounds."""
    bounds = {"at least": least, "at most": most, "above": above, "below": below}
    bounds = {words: bound for words, bound in bounds.items() if bound is not None}
    holds = {"at least": ge, "at most": le, "above": gt, "below": lt}
    what = "a whole number" if kind is int else "a number"
    wanted = " and ".join(f"{words} {bound:g}" for words, bound in bounds.items())

    def convert(text):
        try:
            value = kind(text)
        except ValueError:
            value = None
        if value is None or not all(holds[words](value, bound) for words, bound in bounds.items()):
            raise argparse.ArgumentTypeError(
                f"must be {what} {wanted}, got {text!r}".replace("  ", " ")
            )
        return value

    return convert


SEED = number(least=0, most=2**32 - 1)  # what Keras takes as a seed on every backend


def one_of(names):
    """Return an argparse type: one of `names`, all of which a wrong value lists."""

    def convert(text):
        if text not in names:
            raise argparse.ArgumentTypeError(f"no {text!r}: choose one of {', '.join(names)}")
        return text

    return convert


class Parser(argparse.ArgumentParser):
    """An argument parser whose errors are one line, too, and which knows what scripts share."""

    def add_data_dir(self):
        """Take --data-dir, for `load_flowers`."""
        self.add_argument(
            "--data-dir",
            default=os.environ.get("DATA_DIR") or None,
            help="folder of flowers, or the word 'painted' (default: the environment's DATA_DIR, "
            "or what is under data/, or painted flowers)",
        )

    def add_model(self):
        """Take --model, to draw with."""
        self.add_argument(
            "--model",
            type=Path,
            help="a .keras file or a run's folder (default: the trained model that ships, "
            "models/flowers-64.keras)",
        )

    def error(self, message):
        fail(f"{message}; {self.prog} --help lists the options")


def run(main):
    """Run `main()` and exit with what it returns; a foreseen error is one line, and status 2."""
    # Raised by our own code with messages for people; anything else is a defect and keeps its
    # trace-back.
    foreseen = (ValueError, OSError, RuntimeError)
    try:
        status = main()
    except ModuleNotFoundError as error:
        fail(f"no module {error.name!r}: run 'make help', and use .venv/bin/python")
    except foreseen as error:
        fail(" ".join(str(error).split()))
    except KeyboardInterrupt:
        print("\nstopped", file=sys.stderr)
        status = 130
    sys.exit(status)


def load_keras():
    """Import Keras before anything else does, without TensorFlow's start-up lines."""
    import utils  # noqa: F401 (importing it does that)


def fail(message):
    """Print one line on standard error and exit with status 2."""
    message = message if len(message) <= 600 else message[:600] + " ..."
    print(f"error: {message}", file=sys.stderr)
    sys.exit(2)
