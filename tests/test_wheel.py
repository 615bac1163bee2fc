"""The wheel built from the repository works outside it."""

import importlib.metadata
import importlib.util
import os
import shutil
import subprocess
import sysconfig
import zipfile
from pathlib import Path

import pytest
from processes import ROOT, python


def setuptools_version():
    try:
        return int(importlib.metadata.version("setuptools").split(".")[0])
    except importlib.metadata.PackageNotFoundError:
        return 0


pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        importlib.util.find_spec("pip") is None or setuptools_version() < 77,
        reason="pip and setuptools 77 or newer are needed to build a wheel without downloads",
    ),
]

SHIPPED = "flowers-64", "flowers-by-name-64", "encoder-64", "noisy-classifier-64"
MODELS = [name + suffix for name in SHIPPED for suffix in (".keras", ".json")]
ELSEWHERE = """
import importlib.util
from pathlib import Path

import diffusion
from diffusion import load_run
from diffusion.data.species import SPECIES
from diffusion.evaluation import load_encoder
from diffusion.support.paths import data_home, models_home

assert load_run().model.generate(1, 2, seed=0).shape == (1, 64, 64, 3)
load_encoder()
assert data_home() == Path.cwd() / "data" and models_home() == Path.cwd() / "models"
assert importlib.util.find_spec("utils") is None
print(diffusion.__file__)
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """The wheel, built from a copy of the tree so that nothing is left in the checkout."""
    folder = tmp_path_factory.mktemp("wheel")
    skipped = shutil.ignore_patterns("__pycache__")
    for name in ("diffusion", "benchmarks", "doctor", "scripts", "tests"):
        shutil.copytree(ROOT / name, folder / "tree" / name, ignore=skipped)
    for name in ("pyproject.toml", "setup.py", "MANIFEST.in", "README.md", "LICENSE", "utils.py"):
        shutil.copy(ROOT / name, folder / "tree")
    (folder / "tree" / "models").mkdir()
    for name in MODELS:
        shutil.copy(ROOT / "models" / name, folder / "tree" / "models")
    options = ["--no-deps", "--no-build-isolation", "--no-index", "--wheel-dir", folder]
    python("-m", "pip", "wheel", *options, folder / "tree")
    return next(folder.glob("*.whl"))


def test_it_holds_the_library_its_data_and_its_models_alone(wheel):
    names = zipfile.ZipFile(wheel).namelist()
    information = f"{wheel.name.split('-py3')[0]}.dist-info"
    assert {Path(name).parts[0] for name in names} == {"diffusion", information}
    files = [path for kind in ("py", "json") for path in (ROOT / "diffusion").rglob(f"*.{kind}")]
    expected = {path.relative_to(ROOT).as_posix() for path in files}
    expected |= {f"diffusion/pretrained/{name}" for name in MODELS}
    assert {name for name in names if name.startswith("diffusion/")} == expected


def test_installed_elsewhere_it_generates_a_flower(wheel, tmp_path):
    site, environment, work = (tmp_path / name for name in ("site", "environment", "work"))
    work.mkdir()
    python("-m", "pip", "install", "--no-deps", "--no-index", "--target", site, wheel)
    python("-m", "venv", "--without-pip", environment)
    # On PYTHONPATH the packages are found but no .pth file is read, so neither is the checkout.
    path = os.pathsep.join([str(site), sysconfig.get_path("purelib")])
    variables = {k: v for k, v in os.environ.items() if k not in ("DATA_DIR", "MODELS_DIR")}
    scripts = "Scripts" if os.name == "nt" else "bin"
    done = subprocess.run(
        [environment / scripts / "python", "-c", ELSEWHERE],
        env=variables | {"PYTHONPATH": path},
        cwd=work,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == str(site / "diffusion" / "__init__.py")
    assert not list(work.iterdir())
