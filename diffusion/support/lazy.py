"""Public names that a package loads on first use (PEP 562), so that importing it stays cheap."""

from __future__ import annotations  # `make check` imports this module under old Pythons

from collections.abc import Callable
from importlib import import_module
from typing import Any


def lazy_names(
    package: str, modules: dict[str, tuple[str, ...]]
) -> tuple[Callable[[str], Any], Callable[[], list[str]], list[str]]:
    """Return `__getattr__`, `__dir__` and `__all__` for the package named `package`.

    modules: {module, relative to the package: the public names it defines}.
    """
    origin = {name: module for module, names in modules.items() for name in names}

    def load(name):
        if name not in origin:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        return getattr(import_module(f"{package}.{origin[name]}"), name)

    return load, lambda: sorted(origin), sorted(origin)
