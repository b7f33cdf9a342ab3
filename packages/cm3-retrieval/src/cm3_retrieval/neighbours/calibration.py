"""The likeness from which two documents count as one, found on the bank.

Takes a bank; gives the strategy with that threshold. Encoders spread documents differently: what
is a near copy for one is another document for the next, so no fixed number serves all of them.
"""

from dataclasses import replace

import numpy as np

from cm3_retrieval.bank.memory_bank import MemoryBank
from cm3_retrieval.neighbours.strategy import RetrievalConfig

_SAMPLE = 512
"""Documents looked at."""

_PLACE = 10
"""The neighbour whose distance counts as ordinary: nine copies of a document do not move it."""

_SHARE = 0.1
"""Documents nearer than this share of the ordinary distance are near copies."""


def calibrated(bank: MemoryBank, config: RetrievalConfig, *, threads: int = 1) -> RetrievalConfig:
    """Return `config` with `max_likeness` set, found on a sample of the bank where it is None.

    The distance of two documents is 1 minus their inner product. The median distance of a document
    to its tenth neighbour counts as ordinary, and a tenth of that as the distance of a near copy.

    Args:
        bank: The bank that neighbours come from.
        config: The strategy.
        threads: FAISS's threads.
    """
    if config.max_likeness is not None:
        return config
    if len(bank) < 2:
        return replace(config, max_likeness=1.0)
    drawn = np.random.default_rng(0).permutation(np.sort(bank.keys))[:_SAMPLE]
    scores = bank.search(bank.vectors_of(drawn), min(_PLACE + 1, len(bank)), threads=threads)[0]
    ordinary = 1 - float(np.median(scores[:, -1]))
    return replace(config, max_likeness=round(1 - _SHARE * max(ordinary, 0.0), 6))
