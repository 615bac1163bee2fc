"""Put the models that ship into the wheel; pyproject.toml has the rest."""

import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

SHIPPED = ("flowers-64.*", "flowers-by-name-64.*", "encoder-64.*", "noisy-classifier-64.*")


class BuildWithModels(build_py):
    def run(self):
        super().run()
        if self.editable_mode:
            return
        target = Path(self.build_lib, "diffusion", "pretrained")
        target.mkdir(parents=True, exist_ok=True)
        for pattern in SHIPPED:
            for file in Path("models").glob(pattern):
                shutil.copy(file, target)


setup(cmdclass={"build_py": BuildWithModels})
