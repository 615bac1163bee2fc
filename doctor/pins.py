"""What the requirements file pins, and what is installed instead.

Like `doctor.checks`, which reports it, this needs no package and runs under old Pythons.
"""

import ast
import operator
import os
import platform
import re
import sys
from pathlib import Path

PROJECT = "diffusion-flowers"  # what `-e .` installs


def requirements_file():
    """The name of the file that pins what the chosen backend needs."""
    on_jax = os.environ.get("KERAS_BACKEND") == "jax"
    return "requirements-jax.txt" if on_jax else "requirements.txt"


def compare(pinned, installed):
    """Return the names that are missing, and (name, has, pin) of those in another version.

    pinned, installed: {name: version}, from `read_pins` and `installed_versions`.
    """
    missing = [name for name in pinned if name not in installed]
    different = [
        (name, installed[name], pin)
        for name, pin in pinned.items()
        # what comes after a "+" says how a package was built
        if name in installed and pin not in (None, installed[name], installed[name].split("+")[0])
    ]
    return missing, different


def read_pins(requirements):
    """Return {name: version} of the pins that apply here; the project itself has no version."""
    pins = {}
    for line in Path(requirements).read_text(encoding="utf-8").splitlines():
        line = line.split("#")[0].strip()
        if line == "-e .":
            pins[PROJECT] = None
        requirement, _, marker = line.partition(";")
        pin = re.match(r"([\w.-]+)(?:\[.*\])?==(\S+)", requirement.strip())
        if pin and (not marker.strip() or applies(marker.strip())):
            pins[normal(pin.group(1))] = pin.group(2)
    return pins


def installed_versions(project_root):
    """Return {name: version} of what this Python can import.

    `project_root` is left out of the search: building the project leaves a folder there that
    looks like an installed package to whoever has it on `sys.path`.
    """
    from importlib.metadata import distributions

    paths = [path for path in sys.path if Path(path).resolve() != Path(project_root).resolve()]
    versions = {}
    for distribution in distributions(path=paths):
        name = distribution.metadata["Name"]
        if name:  # a package half removed has none
            versions.setdefault(normal(name), distribution.version)
    return versions


def normal(name):
    """The one spelling of a package's name: `Foo_Bar` is `foo-bar`. (PEP 503)"""
    return re.sub(r"[-_.]+", "-", name).lower()


def applies(marker):
    """Whether an environment marker such as `python_full_version < '3.12'` holds here. (PEP 508)"""
    try:
        from packaging.markers import Marker
    except ImportError:
        return holds(marker)
    return Marker(marker).evaluate()


def holds(marker):
    """`applies` without the package `packaging`: what `uv pip compile` writes, and no more."""
    try:
        return _value(ast.parse(marker, mode="eval").body)
    except (SyntaxError, KeyError, AttributeError, ValueError):
        return True  # better to name one package too many than to overlook one


def _value(node):
    """The value of a marker's syntax tree: the grammar of markers is that of Python."""
    if isinstance(node, ast.BoolOp):
        return (all if isinstance(node.op, ast.And) else any)(map(_value, node.values))
    (compare_by,) = (_OPERATORS[type(op)] for op in node.ops)
    variable, value = node.left.id, ast.literal_eval(node.comparators[0])
    mine = _variables()[variable]
    if variable.startswith("python"):
        mine, value = _numbers(mine), _numbers(value)
    return compare_by(mine, value)


_OPERATORS = {
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
}


def _variables():
    return {
        "python_full_version": platform.python_version(),
        "python_version": ".".join(platform.python_version_tuple()[:2]),
        "sys_platform": sys.platform,
        "platform_machine": platform.machine(),
        "platform_system": platform.system(),
        "platform_python_implementation": platform.python_implementation(),
        "implementation_name": sys.implementation.name,
        "os_name": os.name,
    }


def _numbers(version):
    return tuple(int(number) for number in re.findall(r"\d+", version))[:3]
