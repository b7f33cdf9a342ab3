"""The documents that go before a training pair or a prompt.

Takes the neighbour table in training, the bank and query vectors at inference; gives keys. Paper
2.1 (arXiv 2309.02591): three neighbours, drawn at random, for each training pair.
"""

from collections.abc import Iterable, Mapping

import numpy as np

from cm3_retrieval.bank.memory_bank import MemoryBank
from cm3_retrieval.index.checks import checked_count, checked_integers, checked_vectors
from cm3_retrieval.neighbours.draws import CONTEXT_STREAM, generator
from cm3_retrieval.neighbours.pools import first_pools, take
from cm3_retrieval.neighbours.strategy import RetrievalConfig
from cm3_retrieval.neighbours.table import KINDS, NeighbourTable


def training_context(
    table: NeighbourTable, key: int, *, n: int, seed: int, epoch: int
) -> list[int]:
    """Draw n neighbours at random from the union of both kinds, or fewer if fewer exist.

    The draw depends on (seed, epoch, key) alone.

    Args:
        table: The neighbour table.
        key: The document that they will go before.
        n: Number of neighbours; the paper draws 3.
        seed: Seed of the run.
        epoch: Epoch, from 0.
    """
    union = np.unique(np.concatenate(list(table.candidates(key).values())))
    union = union[union != key]
    rng = generator(seed, CONTEXT_STREAM, epoch, key)
    return [int(neighbour) for neighbour in rng.permutation(union)[:n]]


def inference_context(
    bank: MemoryBank,
    query_vectors: Mapping[str, np.ndarray],
    config: RetrievalConfig,
    n: int | None = None,
    exclude: Iterable[int] = (),
) -> list[int]:
    """Pick documents for a new prompt; the kinds of query alternate.

    Args:
        bank: The bank to pick from.
        query_vectors: `image`, `text` or both -> (dim,) vector of length 1.
        config: The strategy.
        n: Largest number of documents; None takes `config.num_context`.
        exclude: Keys never picked.

    Returns:
        At most n keys, best first; no two of them closer than `duplicate_threshold`.

    Raises:
        ValueError: An unknown kind of query, a vector of another shape or with NaN, or keys in
            `exclude` that are no integers.
    """
    unknown = set(query_vectors) - set(KINDS)
    if unknown:
        raise ValueError(f"query_vectors: wanted kinds out of {KINDS}, got {sorted(unknown)}")
    n = config.num_context if n is None else checked_count("n", n, 0)
    kinds = [kind for kind in KINDS if kind in query_vectors]
    queries = {
        kind: checked_vectors(f"query_vectors[{kind!r}]", query_vectors[kind][None], bank.dim)
        for kind in kinds
    }
    pools = {kind: first_pools(bank, queries[kind], config)[0] for kind in kinds}
    excluded = set(checked_integers("exclude", list(exclude)).tolist())
    picks, spent = [], set()
    while len(picks) < n and len(spent) < len(kinds):
        kind = kinds.pop(0)  # this turn's kind goes to the back
        kinds.append(kind)
        near = bank.vectors_of(picks) if picks else np.empty((0, bank.dim), np.float32)
        taken, _ = take(
            bank, queries[kind][0], pools[kind], excluded | set(picks), 1, config, repeats=near
        )
        picks.extend(int(key) for key in taken)
        spent = spent - {kind} if len(taken) else spent | {kind}
    return picks
