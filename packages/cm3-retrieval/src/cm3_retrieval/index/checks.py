"""Checks of vectors, keys and queries before they reach FAISS.

Each takes an array from a caller; gives a contiguous float32 or int64 array, or a ValueError that
names the argument, what was wanted and what came.
"""

import numpy as np

_CHECKED_ROWS = 65536
"""Rows checked in one step."""


def checked_vectors(name: str, vectors: np.ndarray, dim: int | None = None) -> np.ndarray:
    """Return `vectors` as contiguous float32 (N, dim), or raise a ValueError that says why not."""
    array = np.asarray(vectors)
    if array.ndim != 2 or array.shape[1] == 0 or (dim is not None and array.shape[1] != dim):
        wanted = f"(N, {'dim' if dim is None else dim})"
        raise ValueError(f"{name}: wanted shape {wanted}, got {array.shape}")
    if array.dtype.kind != "f":
        raise ValueError(f"{name}: wanted floats, got {array.dtype}")
    for start in range(0, len(array), _CHECKED_ROWS):  # in blocks: no second copy of a large array
        finite = np.isfinite(array[start : start + _CHECKED_ROWS])
        if not finite.all():
            row = start + int(np.flatnonzero(~finite.all(axis=1))[0])
            raise ValueError(f"{name}: wanted finite numbers, got NaN or infinity in row {row}")
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


def checked_keys(name: str, keys: np.ndarray) -> np.ndarray:
    """Return `keys` as int64 (N,), all at least 0 and all different, or raise a ValueError."""
    array = np.asarray(keys)
    if array.ndim != 1 or (array.size and array.dtype.kind not in "iu"):
        raise ValueError(f"{name}: wanted N integers, got {array.dtype} of shape {array.shape}")
    array = array.astype(np.int64)
    if (array < 0).any():
        raise ValueError(f"{name}: wanted keys of at least 0, got {int(array.min())}")
    unique, counts = np.unique(array, return_counts=True)
    if (counts > 1).any():
        raise ValueError(f"{name}: wanted each key once, got {int(unique[counts > 1][0])} twice")
    return array


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
    if not 1 <= k <= count:
        raise ValueError(f"k: wanted 1 to {count}, the number of rows, got {k}")
    return queries
