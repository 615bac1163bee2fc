"""Imports go down only: training and evaluation, then data and the ideas, then support."""

import ast

import pytest
from conftest import ROOT
from processes import python

MODULES = sorted((ROOT / "diffusion").rglob("*.py"))
# What each part of the library may import of the others.
ALLOWED = {
    "support": {"support"},
    "ideas": {"support", "ideas"},
    "data": {"support", "data"},
    "training": {"support", "ideas", "data", "training"},
    "evaluation": {"support", "ideas", "data", "evaluation"},
}


def part_of(module):
    """The part that a dotted name such as `diffusion.data.flowers` belongs to."""
    parts = module.split(".")
    return parts[1] if len(parts) > 1 and parts[1] in ALLOWED else "ideas"


def imported_by(source):
    """Every module that a source imports, at the top or within a function."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        if isinstance(node, ast.ImportFrom):
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_module_imports_only_from_parts_below_it(path):
    module = ".".join(path.relative_to(ROOT).with_suffix("").parts)
    imported = [name for name in imported_by(path.read_text()) if name.startswith("diffusion.")]
    assert {part_of(name) for name in imported} <= ALLOWED[part_of(module)]
    outside = {"utils", "scripts", "benchmarks", "doctor", "tests", "command"}
    assert outside.isdisjoint(name.split(".")[0] for name in imported_by(path.read_text()))


@pytest.mark.slow
def test_importing_the_package_imports_no_framework_and_its_public_names_exist():
    code = (
        "import sys, diffusion, diffusion.data, diffusion.training, diffusion.evaluation\n"
        "import diffusion.support.contracts\n"
        "assert {'keras', 'tensorflow', 'jax', 'numpy'}.isdisjoint(sys.modules)\n"
        "packages = diffusion, diffusion.data, diffusion.training, diffusion.evaluation\n"
        "print([getattr(p, name) for p in packages for name in p.__all__] != [])\n"
        "assert len(diffusion.__all__) == 15\n"
        "assert dir(diffusion) == sorted(diffusion.__all__)"
    )
    python("-c", code)
