"""The names in a registry such as `samplers.SAMPLERS`, read without importing its module.

Importing the module would import Keras, which takes seconds; a command line should refuse a wrong
name at once.
"""

import ast
from typing import Any

from diffusion.support.paths import PACKAGE


def names_in(module: str, registry: str) -> tuple[str, ...]:
    """Return the keys of a dictionary, or the items of a tuple, as its module's source has them.

    names_in("samplers", "SAMPLERS") -> ("ddim", ...). Raises LookupError where the module
    `diffusion.<module>` assigns no dictionary or tuple of plain strings to that name.
    """
    path = PACKAGE.joinpath(*module.split(".")).with_suffix(".py")
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, (ast.Assign, ast.AnnAssign)):
            target = node.targets[0] if isinstance(node, ast.Assign) else node.target
            if isinstance(target, ast.Name) and target.id == registry:
                value: Any = node.value
                items: Any = value.keys if isinstance(value, ast.Dict) else value.elts
                return tuple(ast.literal_eval(item) for item in items)
    raise LookupError(f"diffusion.{module} has no dictionary or tuple {registry}")
