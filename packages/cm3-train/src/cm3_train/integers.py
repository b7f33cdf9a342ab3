"""Whole numbers that came from outside: taken if they are whole, refused by name if not.

NumPy and PyArrow cut 1.7 to 1 without a word, and two keys become one.
"""

from __future__ import annotations

import operator
from typing import Any

import numpy as np

INT64 = -(2**63), 2**63 - 1
UINT16 = 0, 2**16 - 1


def integer(value: Any, name: str, limits: tuple[int, int] = INT64) -> int:
    """Return `value` as an int.

    Args:
        value: An int, of Python or NumPy; True and 1.0 are none.
        name: What to call it in the message.
        limits: The smallest and the largest that fit.

    Raises:
        ValueError: It is no integer, or out of the limits.
    """
    try:
        whole = None if isinstance(value, bool | np.bool_) else operator.index(value)
    except TypeError:
        whole = None
    if whole is None:
        raise ValueError(f"{name}: wanted an integer, got {value!r}")
    if not limits[0] <= whole <= limits[1]:
        raise ValueError(f"{name}: wanted {limits[0]}..{limits[1]}, got {whole}")
    return whole


def integers(values: Any, name: str, limits: tuple[int, int] = INT64) -> np.ndarray:
    """Return `values` as int64 (N,); no value at all is taken whatever its type.

    Args:
        values: A flat list or array of integers.
        name: What to call it in the message.
        limits: The smallest and the largest that fit.

    Raises:
        ValueError: They are not flat, no integers, or out of the limits.
    """
    array = np.asarray(values)
    if array.size == 0:
        return np.empty(0, dtype=np.int64)
    if array.ndim != 1 or array.dtype.kind not in "iu":
        raise ValueError(f"{name}: wanted a flat list of ints, got {array.dtype} {array.shape}")
    low, high = int(array.min()), int(array.max())
    if low < limits[0] or high > limits[1]:
        raise ValueError(f"{name}: wanted {limits[0]}..{limits[1]}, got {low}..{high}")
    return array.astype(np.int64, copy=False)
