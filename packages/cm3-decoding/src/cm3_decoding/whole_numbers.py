"""Whole numbers and ids as callers give them: Python's, NumPy's or a tensor's, one or several.

Takes anything, gives ints, or an error that names the argument.
"""

from __future__ import annotations

import operator
from collections.abc import Iterable


def whole(name: str, value: object, at_least: int | None = None) -> int:
    """Return `value` as an int.

    Raises:
        ValueError: It is not a whole number (5.0 is none), or below `at_least`.
    """
    try:
        number = operator.index(value)  # type: ignore[arg-type]
    except (TypeError, ValueError, RuntimeError):
        number = None
    if number is None or (at_least is not None and number < at_least):
        bound = "" if at_least is None else f" of at least {at_least}"
        raise ValueError(f"{name}: wanted a whole number{bound}, got {value!r}")
    return number


def whole_numbers(name: str, values: object) -> tuple[int, ...]:
    """Return one or several ids, each of at least 0, as a tuple; errors as of `whole`."""
    if not isinstance(values, Iterable) or getattr(values, "ndim", 1) == 0:
        return (whole(name, values, 0),)
    return tuple(whole(name, value, 0) for value in values)
