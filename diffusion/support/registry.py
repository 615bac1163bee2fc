"""The names in a registry such as `samplers.SAMPLERS`, read without importing its module.

Importing one imports Keras, which takes seconds: a command line that is given a wrong name should
say so at once.
"""

import ast

from diffusion.support.paths import PACKAGE


def names_in(module, registry):
    """Return the keys of the dictionary `registry` as `diffusion/<module>.py` writes them.

    names_in("samplers", "SAMPLERS") -> ("ddim", ...). Raises LookupError where the module has no
    dictionary of that name with plain strings for keys.
    """
    source = (PACKAGE / f"{module}.py").read_text(encoding="utf-8")
    for node in ast.parse(source).body:
        if not isinstance(node, ast.Assign | ast.AnnAssign) or not isinstance(node.value, ast.Dict):
            continue
        target = node.target if isinstance(node, ast.AnnAssign) else node.targets[0]
        if isinstance(target, ast.Name) and target.id == registry:
            return tuple(ast.literal_eval(key) for key in node.value.keys if key is not None)
    raise LookupError(f"diffusion/{module}.py has no dictionary {registry}")
