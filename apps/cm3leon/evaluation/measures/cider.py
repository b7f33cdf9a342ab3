"""CIDEr-D of captions (Vedantam et al., arXiv 1411.5726), as pycocoevalcap 1.2 computes it.

Pycocoevalcap's wheel is 100 MB, mostly Java, and has no new version since 2020: it is what the
tests compare with, not what runs here.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from scipy import sparse

from cm3leon.evaluation.measures.caption_words import caption_words
from cm3leon.evaluation.measures.inputs import checked_references
from cm3leon.evaluation.measures.ngrams import ngram_counts

ORDER = 4
"""Words in the longest n-gram."""
SIGMA = 6.0
"""Of the penalty for another length, in bigrams."""


class CiderD:
    """Counted captions and references of N pictures, to be scored all or in part.

    The weight of an n-gram is how few of the scored pictures have it in a reference, so a score
    depends on the other pictures: state how many there were. One picture alone has 0.
    """

    def __init__(
        self,
        captions: Sequence[str],
        references: Sequence[Sequence[str]],
        *,
        words: Callable[[str], list[str]] = caption_words,
    ) -> None:
        """Count n-grams.

        Args:
            captions: N, what was said.
            references: N lists of at least one.
            words: Splits a text; `str.split` for texts that a tokeniser has split.

        Raises:
            ValueError: A caption or reference is missing or no text.
        """
        said, wanted = checked_references(captions, references)
        self.count = len(said)
        sentences = [words(text) for text in [*said, *(text for texts in wanted for text in texts)]]
        self._per_picture = np.array([len(texts) for texts in wanted])
        self._picture = np.repeat(np.arange(self.count), self._per_picture)  # (M,) of a reference
        lengths = np.fromiter(map(len, sentences), np.int64, len(sentences))
        bigrams = np.maximum(lengths - 1, 0)
        apart = bigrams[self._picture] - bigrams[self.count :]
        self._penalty = np.exp(-(apart**2) / (2 * SIGMA**2))  # (M,)
        member = sparse.csr_matrix(
            (np.ones(len(self._picture)), (self._picture, np.arange(len(self._picture))))
        )  # (N, M)
        self._orders = []
        for counts in ngram_counts(sentences, ORDER):
            one, other = counts[: self.count], counts[self.count :]
            present = ((member @ other) > 0).astype(np.float64)  # (N, V)
            clipped = one[self._picture].minimum(other).multiply(other).tocsr()  # (M, V)
            self._orders.append((present.T.tocsr(), clipped, one.power(2), other.power(2)))

    def scores(self, rows: np.ndarray | None = None) -> np.ndarray:
        """Return the scores (N,) of all pictures, 0..10, or of `rows` (K,) as if these were all.

        The figure of the set is their mean. Papers print it times 100: their 61.6 is 0.616 here.
        """
        rows = np.arange(self.count) if rows is None else np.asarray(rows)
        times = np.bincount(rows, minlength=self.count).astype(np.float64)
        value = np.zeros(len(self._picture))
        for present, clipped, one, other in self._orders:
            having = present @ times  # pictures with the n-gram in a reference (V,)
            # exactly 0 where all have it, whatever the rounding of the two logarithms
            weight = np.where(
                having < len(rows), np.log(len(rows)) - np.log(np.maximum(1, having)), 0.0
            )
            square = weight**2
            norms = np.sqrt((one @ square)[self._picture]) * np.sqrt(other @ square)
            value += np.divide(clipped @ square, norms, out=np.zeros_like(norms), where=norms > 0)
        value *= self._penalty / ORDER * 10
        return (np.bincount(self._picture, value, self.count) / self._per_picture)[rows]


def cider_d(
    captions: Sequence[str],
    references: Sequence[Sequence[str]],
    *,
    words: Callable[[str], list[str]] = caption_words,
) -> np.ndarray:
    """Return the CIDEr-D (N,) of captions; see `CiderD`, whose arguments and errors it has."""
    return CiderD(captions, references, words=words).scores()
