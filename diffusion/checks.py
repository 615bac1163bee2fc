"""Checks of arguments that more than one module takes."""

import operator


def whole_number(name, value, least):
    """`value` as an int of at least `least`; ValueError naming it where it is none."""
    try:
        number = operator.index(value)
    except TypeError:
        number = None
    if number is None or number < least:
        raise ValueError(f"{name} must be a whole number of at least {least}, got {value!r}")
    return number
