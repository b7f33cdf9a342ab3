"""Checks of arguments: integers of any kind (lists, NumPy, CPU tensors), and texts."""

import numpy as np
from numpy.typing import ArrayLike


def integer_array(values: ArrayLike, name: str) -> np.ndarray:
    """Return `values` as an int64 array of the same shape.

    Raises:
        TypeError: The values are not integers (booleans are refused too).
    """
    array = np.asarray(values)
    if array.size == 0:
        return array.astype(np.int64)  # np.asarray([]) is float64
    if array.dtype.kind not in "iu":
        raise TypeError(f"{name}: wanted integers, got an array of {array.dtype}")
    return array.astype(np.int64)


def ranges(chosen: np.ndarray) -> tuple[tuple[int, int], ...]:
    """Return the runs of True in booleans as ranges [start, stop)."""
    # 0 1 1 0 1 -> changes at 1 3 4 5 -> (1, 3), (4, 5)
    edges = np.flatnonzero(np.diff(chosen.astype(np.int8), prepend=0, append=0)).tolist()
    return tuple(zip(edges[::2], edges[1::2], strict=True))


def require(valid: np.ndarray, values: np.ndarray, name: str, wanted: str, start: int = 0) -> None:
    """Refuse `values` unless all are valid.

    Args:
        valid: Booleans of the same shape as `values`.
        values: The values checked.
        name: The parameter's name.
        wanted: A description of a valid value.
        start: Position of the first value, if only part of a row is checked.

    Raises:
        ValueError: A value is not valid; the message names the first such position.
    """
    if valid.all():
        return
    # argmin of booleans is the first False; a position in a grid is a tuple.
    where = tuple(int(i) for i in np.unravel_index(int(np.argmin(valid)), valid.shape))
    position = where[0] + start if len(where) == 1 else where
    raise ValueError(f"{name}: at position {position} wanted {wanted}, got {int(values[where])}")


def utf8(text: str, name: str) -> bytes:
    """Return `text` as UTF-8.

    Raises:
        TypeError: It is not a str.
        ValueError: It holds a lone surrogate; the message names its position.
    """
    if not isinstance(text, str):
        raise TypeError(f"{name}: wanted a str, got {type(text).__name__}")
    try:
        return text.encode()
    except UnicodeEncodeError as error:
        got = f"the lone surrogate U+{ord(text[error.start]):04X} at character {error.start}"
        raise ValueError(f"{name}: wanted valid Unicode, got {got}") from None
