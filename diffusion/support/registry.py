"""The names in a registry such as `samplers.SAMPLERS`, read without importing its module.

Importing the module would import Keras, which takes seconds; a command line should refuse a wrong
name at once.
"""

import ast

from diffusion.support.paths import PACKAGE


def names_in(module: str, registry: str) -> tuple[str, ...]:
    """Return the keys of a dictionary, or the items of a tuple, as its module's source has them.

    names_in("samplers", "SAMPLERS") -> ("ddim", ...). Raises LookupError where the module
    `diffusion.<module>` assigns no dictionary or tuple of plain strings to that name.
    """
    value = _assigned(_parse(module), registry)
    items: list = value.keys if isinstance(value, ast.Dict) else getattr(value, "elts", [])
    if not items:
        raise LookupError(f"diffusion.{module} has no dictionary or tuple {registry}")
    return tuple(ast.literal_eval(item) for item in items)


def takes(module: str, registry: str, name: str, argument: str) -> bool:
    """Return whether the function that a registry has under `name` takes that argument."""
    tree = _parse(module)
    registered = _assigned(tree, registry)
    values = dict(zip(names_in(module, registry), registered.values, strict=True))
    function = values[name]
    if isinstance(function, ast.Call):  # functools.partial(function, ...)
        function = function.args[0]
    definitions = {node.name: node for node in tree.body if isinstance(node, ast.FunctionDef)}
    arguments = definitions[function.id].args
    return argument in {each.arg for each in arguments.args + arguments.kwonlyargs}


def _parse(module):
    path = PACKAGE.joinpath(*module.split(".")).with_suffix(".py")
    return ast.parse(path.read_text(encoding="utf-8"))


def _assigned(tree, name):
    for node in tree.body:
        targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
        if any(getattr(target, "id", None) == name for target in targets):
            return node.value
    return None
