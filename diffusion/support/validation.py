"""Check arguments that several modules take; keep the arguments that made an object."""

import operator
from typing import Any, Self


def whole_number(name: str, value: Any, least: int, most: int | None = None) -> int:
    """Return `value` as an int from `least` to `most`; ValueError for all else, True included."""
    try:
        number = None if isinstance(value, bool) else operator.index(value)
    except TypeError:
        number = None
    if number is None or number < least or (most is not None and number > most):
        allowed = f"of at least {least}" if most is None else f"from {least} to {most}"
        raise ValueError(f"{name} must be a whole number {allowed}, got {value!r}")
    return number


def checked_seed(seed: Any) -> Any:
    """Return a seed that every backend takes: an int from 0 to 2**32 - 1, or what is no number.

    None and a `keras.random.SeedGenerator` are returned as they are. Raises ValueError for other
    numbers, which JAX cannot hold.
    """
    if seed is None or hasattr(seed, "next"):
        return seed
    return whole_number("seed", seed, least=0, most=2**32 - 1)


class Configured:
    """Base class of what is saved by its arguments, `get_config`, and made from them again.

    Register each subclass with Keras, so that a model file can name it.
    """

    def get_config(self) -> dict[str, Any]:
        """Return the arguments that make an equal object."""
        return {}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Self:
        """Make the object again from what `get_config` returned."""
        return cls(**config)

    def __repr__(self) -> str:
        arguments = ", ".join(f"{name}={value}" for name, value in self.get_config().items())
        return f"{type(self).__name__}({arguments})"
