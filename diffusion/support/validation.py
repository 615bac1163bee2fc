"""Validate arguments that several modules take; keep what made a configurable object."""

import operator


def whole_number(name, value, least):
    """`value` as an int of at least `least`; ValueError naming it where it is none, as True is."""
    try:
        number = None if isinstance(value, bool) else operator.index(value)
    except TypeError:
        number = None
    if number is None or number < least:
        raise ValueError(f"{name} must be a whole number of at least {least}, got {value!r}")
    return number


class Configured:
    """Saved by what `get_config` returns, and made again from it. Register what derives from it."""

    def get_config(self):
        """Return the arguments that make an equal one."""
        return {}

    @classmethod
    def from_config(cls, config):
        """Make it again from what `get_config` returned."""
        return cls(**config)

    def __repr__(self):
        arguments = ", ".join(f"{name}={value}" for name, value in self.get_config().items())
        return f"{type(self).__name__}({arguments})"
