"""Checks of vectors, keys and queries before they reach FAISS.

Each takes an array from a caller; gives a contiguous float32 or int64 array, or a ValueError that
names the argument, what was wanted and what came.
"""

from typing import Any

import numpy as np

_CHECKED_ROWS = 65536
"""Rows checked in one step."""

_LARGEST = 1e15
"""Size that no number may exceed: products and squares of larger ones could leave float32."""


def checked_vectors(name: str, vectors: np.ndarray, dim: int | None = None) -> np.ndarray:
    """Return `vectors` as contiguous float32 (N, dim), or raise a ValueError that says why not."""
    array = np.asarray(vectors)
    if array.ndim != 2 or array.shape[1] == 0 or (dim is not None and array.shape[1] != dim):
        wanted = f"(N, {'dim' if dim is None else dim})"
        raise ValueError(f"{name}: wanted shape {wanted}, got {array.shape}")
    if array.dtype.kind != "f":
        raise ValueError(f"{name}: wanted floats, got {array.dtype}")
    largest = min(_LARGEST, float(np.finfo(array.dtype).max))  # float16 has no 1e15
    for start in range(0, len(array), _CHECKED_ROWS):  # in blocks: no second copy of a large array
        block = array[start : start + _CHECKED_ROWS]
        fine = np.abs(block) <= largest  # NaN is not
        if not fine.all():
            row, column = np.argwhere(~fine)[0]
            if np.isfinite(block[row]).all():
                raise ValueError(
                    f"{name}: wanted numbers of at most {_LARGEST:.0e} in size, got "
                    f"{block[row, column]} in row {start + row}"
                )
            raise ValueError(
                f"{name}: wanted finite numbers, got NaN or infinity in row {start + row}"
            )
    return np.ascontiguousarray(array, dtype=np.float32)


def checked_lengths(name: str, vectors: np.ndarray) -> None:
    """Raise a ValueError unless every row of float32 (N, dim) `vectors` has length 1."""
    for start in range(0, len(vectors), _CHECKED_ROWS):
        block = vectors[start : start + _CHECKED_ROWS]
        lengths = np.sqrt(np.einsum("nd,nd->n", block, block))
        wrong = np.abs(lengths - 1)
        if (wrong > 1e-3).any():
            row = int(wrong.argmax())
            raise ValueError(
                f"{name}: wanted rows of length 1, got {lengths[row]:.4f} in {start + row}"
            )


def checked_documents(
    keys: np.ndarray, vectors: np.ndarray, dim: int | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Return keys as int64 and vectors as float32, or raise a ValueError with the reason."""
    keys = checked_keys("keys", keys)
    vectors = checked_vectors("vectors", vectors, dim)
    if len(keys) != len(vectors):
        raise ValueError(f"keys: wanted {len(vectors)}, one a vector, got {len(keys)}")
    checked_lengths("vectors", vectors)
    return keys, vectors


def checked_keys(name: str, keys: np.ndarray) -> np.ndarray:
    """Return `keys` as int64 (N,), all at least 0 and all different, or raise a ValueError."""
    array = checked_integers(name, keys)
    if array.ndim != 1:
        raise ValueError(f"{name}: wanted N integers, got {array.dtype} of shape {array.shape}")
    if (array < 0).any():
        raise ValueError(f"{name}: wanted keys of at least 0, got {int(array.min())}")
    unique, counts = np.unique(array, return_counts=True)
    if (counts > 1).any():
        raise ValueError(f"{name}: wanted each key once, got {int(unique[counts > 1][0])} twice")
    return array


def checked_integers(name: str, values: Any) -> np.ndarray:
    """Return integers as int64, in their shape; refuse all that only looks like some.

    A mask, a float or a digit in a string would pass for a key once NumPy has converted it.

    Args:
        name: What to call them in the error.
        values: An array, a sequence or one integer.

    Raises:
        ValueError: A value is no integer, or beyond int64.
    """
    array = np.asarray(values)
    if not array.size:
        return array.astype(np.int64)
    mixed = [] if isinstance(values, np.ndarray) or not array.ndim else values
    flag = next((value for value in mixed if isinstance(value, bool | np.bool_)), None)
    if array.dtype.kind not in "iu" or flag is not None:
        shown = array.reshape(-1)[:1].tolist()[0] if flag is None else flag
        hint = "; a mask selects keys: keys[mask]" if array.dtype == bool else ""
        raise ValueError(
            f"{name}: wanted N integers, got {array.dtype} of shape {array.shape}, such as "
            f"{shown!r}{hint}"
        )
    if array.dtype == np.uint64 and array.max() > np.iinfo(np.int64).max:
        raise ValueError(f"{name}: wanted integers below 2^63, got {int(array.max())}")
    return array.astype(np.int64)


def checked_count(name: str, value: Any, least: int, most: int | None = None, why: str = "") -> int:
    """Return one integer in a range, or raise a ValueError that says why not."""
    range_ = f"at least {least}" if most is None else f"{least} to {most}{why}"
    if not isinstance(value, int | np.integer) or isinstance(value, bool):
        raise ValueError(f"{name}: wanted an integer, {range_}, got {value!r}")
    if value < least or (most is not None and value > most):
        raise ValueError(f"{name}: wanted {range_}, got {value}")
    return int(value)


def checked_search(queries: np.ndarray, k: int, dim: int, count: int) -> np.ndarray:
    """Return queries as `checked_vectors` does, or refuse them, `k` or an empty index.

    Args:
        queries: (Q, dim) floats.
        k: Results wanted, 1 to `count`.
        dim: Length of the index's vectors.
        count: Number of its rows.

    Raises:
        ValueError: Another shape, no floats, NaN, no rows, or k outside its range.
    """
    queries = checked_vectors("queries", queries, dim)
    if count == 0:
        raise ValueError("index: wanted at least one row to search, got an empty index")
    checked_count("k", k, 1, count, ", the number of rows")
    return queries
