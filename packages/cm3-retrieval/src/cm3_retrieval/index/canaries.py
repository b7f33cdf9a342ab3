"""Canary queries: a few searches that a saved index must answer as it did when it was written.

Takes an index; gives JSON values for the manifest, and compares them after loading. They catch what
hashes cannot: another version of FAISS, or another processor, that reads the same bytes and answers
differently.
"""

from pathlib import Path
from typing import Any

import numpy as np

from cm3_retrieval.index.approximate import ApproximateIndex
from cm3_retrieval.index.exact import ExactIndex

_COUNT = 3
"""Number of queries."""

_RESULTS = 5
"""Results compared for each query."""

_TOLERANCE = 1e-3
"""Allowed difference of scores: another processor sums in another order."""


def make_canaries(index: ApproximateIndex | ExactIndex) -> list[dict[str, Any]]:
    """Search for the neighbours of the first, middle and last document.

    Returns:
        For each, its `key`, and the `keys` and `scores` found; an empty list for an empty index.
    """
    if not index.ntotal:
        return []
    rows = np.unique(np.linspace(0, index.ntotal - 1, _COUNT).astype(np.int64))
    scores, keys = index.search(index.vectors_at(rows), min(_RESULTS, index.ntotal))
    return [
        {
            "key": int(index.keys[row]),
            "keys": found.tolist(),
            "scores": [round(float(score), 6) for score in best],
        }
        for row, found, best in zip(rows, keys, scores, strict=True)
    ]


def check_canaries(
    index: ApproximateIndex | ExactIndex, canaries: list[dict[str, Any]], path: Path
) -> None:
    """Repeat the canary queries and compare the scores.

    Args:
        index: The index, just read.
        canaries: The result of `make_canaries`.
        path: The index's file, for the error.

    Raises:
        ValueError: A score differs.
    """
    for canary in canaries:
        row = index.rows_of(np.array([canary["key"]]))
        found = index.search(index.vectors_at(row), len(canary["scores"]))[0][0]
        if not np.allclose(found, canary["scores"], atol=_TOLERANCE):
            raise ValueError(
                f"{path}: the search for the document under key {canary['key']} gives scores "
                f"{found.tolist()}, when it was saved {canary['scores']}; rebuild the bank"
            )
