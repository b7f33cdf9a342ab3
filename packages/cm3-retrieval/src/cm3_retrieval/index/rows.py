"""Arrays by row that grow at the end, and the rows of keys.

Takes keys or vectors; gives them by row, and the row of a key, without copying or sorting all of
them for each document that is added.
"""

import numpy as np

_SPARE = 8
"""A full array grows by one eighth."""

_UNSORTED = 1024
"""Added keys that need no new order of all keys, beside an eighth of them."""


class GrowingRows:
    """An array with room for rows at its end."""

    def __init__(self, rows: np.ndarray) -> None:
        """Take (N, ...) rows, which are not copied before the first `append`."""
        self._room, self._count = rows, len(rows)

    @property
    def rows(self) -> np.ndarray:
        """The rows, a view."""
        return self._room[: self._count]

    def append(self, rows: np.ndarray) -> None:
        """Add rows at the end."""
        count = self._count + len(rows)
        if count > len(self._room):
            room = np.empty((count + count // _SPARE, *self._room.shape[1:]), self._room.dtype)
            room[: self._count] = self.rows
            self._room = room
        self._room[self._count : count] = rows
        self._count = count


class KeyRows:
    """The keys of rows 0, 1, ..., and the way back."""

    def __init__(self, keys: np.ndarray) -> None:
        """Take (N,) int64 keys, all different."""
        self._keys = GrowingRows(keys)
        self._sort()

    @property
    def keys(self) -> np.ndarray:
        """(N,) int64."""
        return self._keys.rows

    def append(self, keys: np.ndarray) -> None:
        """Add the keys of the next rows."""
        self._keys.append(keys)
        self._later = None
        if len(self.keys) - len(self._order) > len(self._order) // _SPARE + _UNSORTED:
            self._sort()

    def rows_of(self, keys: np.ndarray) -> np.ndarray:
        """Return the row of each key, -1 where there is none."""
        count = len(self._order)  # the keys behind these have an order of their own
        rows = _find(keys, self.keys[:count], self._order)
        if len(self.keys) > count and (rows < 0).any():
            later = self.keys[count:]
            if self._later is None:
                self._later = np.argsort(later)
            missing = rows < 0
            places = _find(keys[missing], later, self._later)
            rows[missing] = np.where(places < 0, -1, places + count)
        return rows

    def _sort(self) -> None:
        self._order, self._later = np.argsort(self.keys), None


def _find(keys: np.ndarray, among: np.ndarray, order: np.ndarray) -> np.ndarray:
    """Return the place of each key, -1 where there is none, by binary search.

    Example: keys [7, 2, 5] have order [1, 2, 0]; looking up 5 finds place 1 among [2, 5, 7], and
    order[1] = 2 is its row.
    """
    if not len(among):
        return np.full(len(keys), -1)
    places = np.searchsorted(among, keys, sorter=order)
    rows = order[np.minimum(places, len(order) - 1)]
    return np.where(among[rows] == keys, rows, -1)
