"""Where files live: in the project's folder in a checkout, else in the working directory.

In a checkout, `data/` and `models/` lie beside the package, wherever a script is started. Installed
from a wheel, the package has no project around it: data and runs go under the working directory,
and shipped models lie inside the package. The environment variable MODELS_DIR overrides the
location of runs.
"""

import os
from pathlib import Path

PACKAGE = Path(__file__).resolve().parents[1]
IN_CHECKOUT = (PACKAGE.parent / "pyproject.toml").is_file()


def home() -> Path:
    """Return the project's folder in a checkout, else the working directory."""
    return PACKAGE.parent if IN_CHECKOUT else Path.cwd()


def data_home() -> Path:
    """Return the folder of the data sets: `data/`."""
    return home() / "data"


def models_home() -> Path:
    """Return the folder of the runs: MODELS_DIR, or `models/`."""
    return Path(os.environ.get("MODELS_DIR") or home() / "models")


def shipped(name: str) -> Path:
    """Return the path of a file that ships with the course, such as "flowers-64.keras"."""
    return (PACKAGE.parent / "models" if IN_CHECKOUT else PACKAGE / "pretrained") / name


SHIPPED = shipped("flowers-64.keras")  # the chapter's network, without names
SHIPPED_BY_NAME = shipped("flowers-by-name-64.keras")
