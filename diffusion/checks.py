"""Checks of arguments that more than one module takes."""

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
