"""Random draws that depend on (seed, epoch, key), never on the order of the calls."""

import numpy as np

# Two uses of one (seed, key) must not share random numbers.
DROPOUT_STREAM, CONTEXT_STREAM = 1, 2


def generator(seed: int, stream: int, epoch: int, key: int) -> np.random.Generator:
    """Return the generator for one document in one epoch.

    Args:
        seed: Seed of the run.
        stream: What is drawn, `DROPOUT_STREAM` or `CONTEXT_STREAM`.
        epoch: Epoch, from 0.
        key: Key of the document.
    """
    return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(stream, epoch, key)))
