"""What the command lines share: options, files to write, and errors in one line.

Everything here works before Keras is imported, so that a mistake is reported at once.
"""

import argparse
import functools
import importlib.util
import io
import json
import os
import sys
import tempfile
from math import inf
from operator import ge, gt, le
from pathlib import Path

RUN_FILES = ("model.keras", "run.json", "losses.csv")  # what a run keeps in its folder


def number(kind=int, least=None, most=None, above=None):
    """Return an argparse type: a finite number of `kind` (int or float) within these bounds."""
    bounds = (("at least", ge, least), ("above", gt, above), ("at most", le, most))
    bounds = [bound for bound in bounds if bound[2] is not None]
    what = "a whole number" if kind is int else "a number"
    wanted = " and ".join(f"{words} {bound}" for words, _, bound in bounds)

    def convert(text):
        try:
            value = kind(text)
        except ValueError:
            value = inf
        if abs(value) < inf and all(holds(value, bound) for _, holds, bound in bounds):
            return value
        raise argparse.ArgumentTypeError(f"must be {what} {wanted}, got {text!r}")

    return convert


GUIDANCE = 2.0  # flowers look most like their names without losing their variety
SEED = number(least=0, most=2**32 - 1)  # what Keras takes as a seed on every backend


def one_of(names):
    """Return an argparse type: one of `names`, all of which a wrong value lists."""

    def convert(text):
        if text not in names:
            raise argparse.ArgumentTypeError(f"no {text!r}: choose one of {', '.join(names)}")
        return text

    return convert


def writable(*suffixes, like=lambda content: False, beside=None):
    """Return an argparse type: the path of a file to write, whose name ends in one of `suffixes`.

    Without suffixes: a picture in any format that Pillow can write. The type refuses a folder, a
    place that cannot be written, a file of a run, and an existing file of another kind.
    like: for .json and .keras, a function of the existing file's content (of a .keras file, its
        config.json), true where the file may be replaced. Default: nothing is replaced.
    beside: such a function for the .json record written beside the file.
    Give defaults as strings: argparse checks those too.
    """

    def convert(text):
        path = Path(text)
        _check_file(path, like)
        if suffixes and path.suffix.lower() not in suffixes:
            _refuse(f"{path}: name a {' or '.join(suffixes)} file")
        if not suffixes and not _first_bytes(path.suffix.lower()):
            _refuse(f"{path}: name a picture file, such as flowers.png")
        if beside is not None:
            _check_file(path.with_suffix(".json"), beside)
        return path

    return convert


def writable_folder(text):
    """An argparse type: the path of a folder to write to; it is not created yet."""
    if not str(text).strip():
        _refuse(f"must be a folder, got {text!r}")
    _check_place(Path(text), Path(text))
    return Path(text)


def check_not_source(output, *sources):
    """Fail if the file `output` is among the sources; a source folder holds all that lies in it."""
    for source in (Path(source).resolve() for source in sources if source is not None):
        if source == output.resolve() or source in output.resolve().parents:
            fail(f"{output} is, or lies in, what is read ({source}): choose another place")


def _first_bytes(suffix):
    """Return how a picture of this kind begins; b"" where Pillow and Matplotlib write none."""
    from PIL import Image

    if suffix == ".svg":
        return b"<?"
    try:
        Image.new("RGB", (8, 8)).save(
            picture := io.BytesIO(), Image.registered_extensions()[suffix]
        )
        return picture.getvalue()[:2]
    except (KeyError, OSError, ValueError):  # unknown, or unable to hold colours
        return b""


def _check_file(path, like):
    if path.is_dir():
        _refuse(f"{path} is a folder: name a file in it")
    if path.name in RUN_FILES and (path.parent / "run.json").exists():
        _refuse(f"{path} belongs to the run in {path.parent}: choose another name")
    _check_place(path, path.parent)
    if path.exists() and not _may_be_replaced(path, like):
        _refuse(f"{path} exists and is something else: choose another name, or delete it")


def _check_place(path, folder):
    folder = folder.absolute()
    try:
        if path.is_file():
            open(path, "ab").close()
        nearest = next(place for place in (folder, *folder.parents) if place.exists())
        with tempfile.TemporaryFile(dir=nearest):
            pass
    except OSError as error:
        _refuse(f"{path} cannot be written ({error.strerror}): choose another place")


def _may_be_replaced(path, like):
    if path.stat().st_size == 0 or not path.is_file():
        return path.is_file()
    suffix = path.suffix.lower()
    try:
        if suffix == ".json":
            return like(json.loads(path.read_text(encoding="utf-8")))
        if suffix == ".keras":
            from diffusion.support.keras_files import read_config

            return like(read_config(path))
        with open(path, "rb") as file:
            return file.read(2) == _first_bytes(suffix)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return False  # what cannot be read is of another kind


def _refuse(message):
    raise argparse.ArgumentTypeError(message)


class Parser(argparse.ArgumentParser):
    """An argument parser whose errors are one line, too, and which knows what scripts share."""

    def add_data_dir(self):
        """Take --data-dir, for `load_flowers`."""
        words = "folder of flowers, or the word 'painted' (default: the environment's DATA_DIR, or "
        words += "what is under data/, or painted flowers)"
        default = os.environ.get("DATA_DIR") or None
        self.add_argument("--data-dir", type=data_folder, default=default, help=words)

    def add_model(self, recorded=False, default="flowers-64.keras"):
        """Take --model, to generate with; recorded: with the record of its training."""
        words = f"a .keras file or a run's folder (default: the one that ships, {default})"
        self.add_argument("--model", type=functools.partial(model, recorded=recorded), help=words)

    def add_count(self, name, default, words, least=1):
        """Take a whole number; the help is `words` and the default."""
        wanted, words = number(least=least), f"{words} (default: %(default)s)"
        self.add_argument(name, type=wanted, default=default, help=words)

    def add_guidance(self, words, **options):
        """Take --guidance, help `words`, and --guidance-interval."""
        scale = number(float, least=0)
        self.add_argument("--guidance", type=scale, metavar="SCALE", help=words, **options)
        words = "noise rates between which guidance acts, such as 0.2 0.8 (default: everywhere)"
        rate, both = number(float, least=0, most=1), ("LOW", "HIGH")
        self.add_argument("--guidance-interval", type=rate, nargs=2, metavar=both, help=words)

    def check_guidance(self, arguments):
        """Refuse an interval whose ends are swapped."""
        if (interval := arguments.guidance_interval) and interval[0] > interval[1]:
            low, high = interval
            self.error(f"--guidance-interval {low} {high}: name the lower noise rate first")

    def add_seed(self):
        """Take --seed."""
        words = "the same seed gives the same images (default: 0)"
        self.add_argument("--seed", type=SEED, default=0, help=words)

    def add_file(self, option, kind, name, words):
        """Take the path of a file to write, by default `name` in build/; kind: see `writable`."""
        from diffusion.support.paths import home

        words, default = f"{words} (default: build/{name})", str(home() / "build" / name)
        self.add_argument(option, type=kind, default=default, metavar="FILE", help=words)

    def error(self, message):
        fail(f"{message}; {self.prog} --help lists the options")


def model(text, recorded=False):
    """An argparse type: the path of a saved model, or of a run's folder, that looks undamaged."""
    from diffusion.support.keras_files import model_file, read_config, record_file
    from diffusion.training.record import load_record

    try:
        read_config(model_file(text))
        if recorded:
            load_record(record_file(text))
    except (ValueError, OSError) as error:
        _refuse(str(error))
    return Path(text)


def class_names(path):
    """Return the names that a saved model or classifier knows, () if none, from its file alone."""
    from diffusion.support.keras_files import model_file, read_config

    return tuple(read_config(model_file(path)).get("config", {}).get("class_names", ()))


def number_or_name(text, names):
    """Return a label as the library takes it: an int, unless a flower has this name."""
    return int(text) if text.lstrip("-").isdecimal() and text not in names else text


def load_species(arguments, image_size, fit="crop"):
    """Load the flowers of --data-dir for a classifier: of two species or more."""
    from diffusion.data.flowers import load_flowers

    flowers = load_flowers(
        arguments.data_dir,
        image_size,
        fit,
        painted=arguments.painted,
        seed=arguments.seed,
        progress=sys.stderr.isatty(),
    )
    if len(flowers.class_names) < 2:
        fail(
            f"{flowers.name} has one species, so nothing to tell apart: put each in its own folder"
        )
    return flowers


def data_folder(text):
    """An argparse type: the folder of a data set, or the word "painted"."""
    if not text.strip():
        _refuse("is empty: name a folder or 'painted', or leave the option out")
    text = os.path.expanduser(text)  # as `load_flowers` does
    if text != "painted" and not Path(text).is_dir():
        _refuse(f"no images under {text}: run 'make data', or name a folder that exists")
    return text


def run(main):
    """Run `main()` and exit with what it returns; a foreseen error is one line, and status 2.

    Our own code raises the foreseen ones with messages for people. Anything else is a defect and
    keeps its trace-back.
    """
    try:
        status = main()
        sys.stdout.flush()
    except BrokenPipeError:  # whoever reads our output, such as `head`, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        status = 128 + 13  # as if SIGPIPE had ended the process
    except ModuleNotFoundError as error:
        fail(_advice_on_module(error.name))
    except MemoryError as error:
        fail(f"out of memory ({str(error) or 'no details'}): use smaller batches or images")
    except (ValueError, OSError, RuntimeError, argparse.ArgumentTypeError) as error:
        fail(str(error))
    except KeyboardInterrupt:
        print("\nstopped" if sys.stderr.isatty() else "stopped", file=sys.stderr)
        status = 130
    except Exception as error:
        tensorflow = sys.modules.get("tensorflow")
        if tensorflow is None or not isinstance(error, tensorflow.errors.OpError):
            raise
        from diffusion.support.keras_files import first_line

        exhausted = type(error).__name__ == "ResourceExhaustedError"
        what = "out of memory or disk space: use smaller batches or images" if exhausted else ""
        fail(f"{what or 'TensorFlow'} ({first_line(error)})")
    sys.exit(status)


def _advice_on_module(name):
    asked = "KERAS_BACKEND" in os.environ
    if str(name).startswith("tensorflow") and not asked and importlib.util.find_spec("jax"):
        return "TensorFlow is not installed, but JAX is: set KERAS_BACKEND=jax"
    return f"no module {name!r}: run 'make help', and use .venv/bin/python"


def load_keras():
    """Import Keras before anything else does, without TensorFlow's start-up lines."""
    import utils  # noqa: F401 (importing it does that)


def fail(message):
    """Print one line on standard error and exit with status 2."""
    message = " ".join(message.split())
    message = message if len(message) <= 600 else message[:600] + " ..."
    print(f"error: {message}", file=sys.stderr)
    sys.exit(2)
