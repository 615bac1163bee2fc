"""Where files live: in the project's folder in a checkout, else in the working directory.

In a checkout, `data/` and `models/` lie beside the package, wherever a script is started from.
Installed from a wheel, the package has no project around it: data and runs go under the working
directory, and the models that ship lie inside the package. The environment's MODELS_DIR overrides
the place of runs.
"""

import os
from pathlib import Path

PACKAGE = Path(__file__).resolve().parents[1]
IN_CHECKOUT = (PACKAGE.parent / "pyproject.toml").is_file()


def home():
    """Return the project's folder in a checkout, else the working directory."""
    return PACKAGE.parent if IN_CHECKOUT else Path.cwd()


def data_home():
    """Return the folder that data sets are looked for in: `data/`."""
    return home() / "data"


def models_home():
    """Return the folder that runs are kept in: MODELS_DIR, or `models/`."""
    return Path(os.environ.get("MODELS_DIR") or home() / "models")


def shipped(name):
    """Return the path of a file that ships with the course, such as "flowers-64.keras"."""
    return (PACKAGE.parent / "models" if IN_CHECKOUT else PACKAGE / "pretrained") / name
