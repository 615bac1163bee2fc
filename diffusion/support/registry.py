"""Read the names in a registry such as `samplers.SAMPLERS` without importing its module.

Importing the module imports Keras, which takes seconds; a command line given a wrong name should
say so at once.
"""

import ast

from diffusion.support.paths import PACKAGE


def names_in(module: str, registry: str) -> tuple[str, ...]:
    """Return the keys of the dictionary `registry` in the source of `diffusion/<module>.py`.

    names_in("samplers", "SAMPLERS") -> ("ddim", ...). Raises LookupError if the module has no
    dictionary of that name.
    """
    source = (PACKAGE / f"{module}.py").read_text(encoding="utf-8")
    for node in ast.parse(source).body:
        if not isinstance(node, ast.Assign | ast.AnnAssign) or not isinstance(node.value, ast.Dict):
            continue
        target = node.target if isinstance(node, ast.AnnAssign) else node.targets[0]
        if isinstance(target, ast.Name) and target.id == registry:
            return tuple(ast.literal_eval(key) for key in node.value.keys if key is not None)
    raise LookupError(f"diffusion/{module}.py has no dictionary {registry}")
