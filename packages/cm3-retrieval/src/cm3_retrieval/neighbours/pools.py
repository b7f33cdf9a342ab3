"""The strategy applied to the documents nearest to a query.

Takes a bank and query vectors; gives the keys that pass `select`, from a pool of the nearest
documents that widens while too few pass.
"""

import numpy as np

from cm3_retrieval.bank.memory_bank import MemoryBank
from cm3_retrieval.neighbours.strategy import RetrievalConfig, select

_COPY = 1 - 1e-5
"""Two documents whose vectors agree up to float32's rounding are copies."""


def first_pools(
    bank: MemoryBank, queries: np.ndarray, config: RetrievalConfig, *, threads: int = 1
) -> np.ndarray:
    """Return the keys of the `config.pool_size` nearest documents, (Q, pool) int64."""
    if len(bank) == 0:
        return np.empty((len(queries), 0), np.int64)
    return bank.search(queries, min(config.pool_size, len(bank)), threads=threads)[1]


def take(
    bank: MemoryBank,
    query: np.ndarray,
    pool: np.ndarray,
    exclude: set[int],
    n: int,
    config: RetrievalConfig,
    *,
    documents: np.ndarray | None = None,
    repeats: np.ndarray | None = None,
    threads: int = 1,
) -> tuple[np.ndarray, np.ndarray]:
    """Apply the strategy to a pool of keys, widening it while too few pass.

    Args:
        bank: The bank that the pool comes from.
        query: (dim,) vector of length 1.
        pool: (P,) keys, from `first_pools`.
        exclude: Keys never taken.
        n: Largest number to take.
        config: The strategy.
        documents: (D, dim) vectors of the document itself; what is closer to one of them than
            `config.max_likeness` is excluded, exact copies always.
        repeats: (R, dim) vectors of documents taken before.
        threads: FAISS's threads.

    Returns:
        At most n keys, best first, and their scores.
    """
    likeness = _COPY if config.max_likeness is None else min(_COPY, config.max_likeness)
    while True:
        vectors = bank.vectors_of(pool)
        barred = np.zeros(len(pool), bool)
        if documents is not None:
            barred |= (vectors.dot(documents.T) > likeness).any(axis=1)
        if repeats is not None and len(repeats):
            barred |= (vectors.dot(repeats.T) > config.duplicate_threshold).any(axis=1)
        scores = np.einsum("pd,d->p", vectors, query)
        has_both = bank.has_both(pool)
        places = select(
            query, vectors, scores, pool, exclude | set(pool[barred].tolist()), has_both, n, config
        )
        # Still wider pools cost more than they bring: stop at 16 times the first.
        if len(places) >= n or len(pool) >= min(len(bank), 16 * config.pool_size):
            return pool[places], scores[places]
        width = min(4 * len(pool), len(bank))
        pool = bank.search(query[None], width, threads=threads)[1][0]
