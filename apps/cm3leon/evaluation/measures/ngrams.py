"""Counts of n-grams of words, as sparse matrices."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain

import numpy as np
from scipy import sparse


def word_ids(sentences: Sequence[Sequence[str]]) -> tuple[np.ndarray, np.ndarray]:
    """Give each word of N sentences a number.

    Returns:
        The words' numbers, one sentence after the other (T,), and the sentences' lengths (N,).
    """
    flat = list(chain.from_iterable(sentences))
    place = {word: number for number, word in enumerate(dict.fromkeys(flat))}
    ids = np.fromiter(map(place.__getitem__, flat), np.int64, len(flat))
    return ids, np.fromiter(map(len, sentences), np.int64, len(sentences))


def ngram_counts(sentences: Sequence[Sequence[str]], order: int) -> list[sparse.csr_matrix]:
    """Return how often each n-gram occurs in each of N sentences, for n = 1..`order`.

    Returns:
        `order` matrices (N, number of different n-grams) float64.
    """
    words, lengths = word_ids(sentences)
    owner = np.repeat(np.arange(len(lengths)), lengths)
    start, gram, found = np.arange(len(words)), words, []
    for n in range(1, order + 1):
        if n > 1:  # the n-gram at a place is the (n-1)-gram there and the next word
            last = start + n - 1
            whole = last < len(words)
            whole[whole] = owner[last[whole]] == owner[start[whole]]
            start, last = start[whole], last[whole]
            pairs = gram[whole] * (words.max(initial=0) + 1) + words[last]
            _, gram = np.unique(pairs, return_inverse=True)
        shape = len(lengths), int(gram.max(initial=-1)) + 1
        ones = np.ones(len(gram))
        found.append(sparse.csr_matrix((ones, (owner[start], gram)), shape))  # adds what repeats
    return found
