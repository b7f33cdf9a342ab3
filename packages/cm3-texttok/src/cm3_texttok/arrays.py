"""What callers pass, checked: integers of any kind (lists, NumPy, CPU tensors), and texts."""

import numpy as np
from numpy.typing import ArrayLike


def integer_array(values: ArrayLike, name: str) -> np.ndarray:
    """`values` as an int64 array of the same shape.

    Raises:
        TypeError: The values are not integers (bool counts as not integer).
    """
    array = np.asarray(values)
    if array.size == 0:
        return array.astype(np.int64)  # np.asarray([]) is float64
    if array.dtype.kind not in "iu":
        raise TypeError(f"{name}: wanted integers, got an array of {array.dtype}")
    return array.astype(np.int64)


def require(valid: np.ndarray, values: np.ndarray, name: str, wanted: str, start: int = 0) -> None:
    """Raises a ValueError that names the first position where `valid` is False.

    Args:
        valid: Boolean array.
        values: What was checked, of the same shape.
        name: The parameter's name.
        wanted: What a valid value is.
        start: Position of the first value, when a part of a row is checked.
    """
    if valid.all():
        return
    # argmin of booleans is the first False; a position in a grid is a tuple.
    where = tuple(int(i) for i in np.unravel_index(int(np.argmin(valid)), valid.shape))
    position = where[0] + start if len(where) == 1 else where
    raise ValueError(f"{name}: at position {position} wanted {wanted}, got {int(values[where])}")


def utf8(text: str, name: str) -> bytes:
    """`text` as UTF-8.

    Raises:
        TypeError: It is no str.
        ValueError: It holds a lone surrogate; the error says where.
    """
    if not isinstance(text, str):
        raise TypeError(f"{name}: wanted a str, got {type(text).__name__}")
    try:
        return text.encode()
    except UnicodeEncodeError as error:
        got = f"the lone surrogate U+{ord(text[error.start]):04X} at character {error.start}"
        raise ValueError(f"{name}: wanted valid Unicode, got {got}") from None
