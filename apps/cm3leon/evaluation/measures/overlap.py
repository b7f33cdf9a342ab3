"""BLEU and ROUGE-L of captions, as pycocoevalcap 1.2 computes them.

BLEU: Papineni et al., doi:10.3115/1073083.1073135; ROUGE-L: Lin, ACL W04-1013. BLEU is
pycocoevalcap's and not sacrebleu's, since the published figures of captions are: no smoothing, the
reference nearest in length, and words as `caption_words` splits them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from scipy import sparse

from cm3leon.evaluation.measures.caption_words import caption_words
from cm3leon.evaluation.measures.inputs import checked_references
from cm3leon.evaluation.measures.ngrams import ngram_counts, word_ids

ORDER = 4
BETA = 1.2
"""How much more recall weighs than precision in ROUGE-L."""
_AT_ONCE = 4096
_TINY, _SMALL = 1e-15, 1e-9  # pycocoevalcap's, against division by 0


class Bleu:
    """Counted captions and references of N pictures, to be scored all or in part."""

    def __init__(
        self,
        captions: Sequence[str],
        references: Sequence[Sequence[str]],
        *,
        words: Callable[[str], list[str]] = caption_words,
    ) -> None:
        """Count n-grams; arguments and errors as of `CiderD`."""
        said, wanted = checked_references(captions, references)
        self.count = len(said)
        sentences = [words(text) for text in [*said, *(text for texts in wanted for text in texts)]]
        lengths = np.fromiter(map(len, sentences), np.int64, len(sentences))
        own, others = lengths[: self.count], lengths[self.count :]
        per_picture = np.array([len(texts) for texts in wanted])
        picture = np.repeat(np.arange(self.count), per_picture)
        # of the references nearest in length the shorter: the least of (difference, length)
        longest = int(lengths.max()) + 1
        key = np.abs(others - own[picture]) * longest + others
        self._nearest = np.minimum.reduceat(key, np.cumsum(per_picture) - per_picture) % longest
        self._own = own
        self._guessed = np.maximum(own[:, None] - np.arange(ORDER), 0)  # (N, ORDER)
        right = [
            counts[: self.count].minimum(_most(counts[self.count :], picture, self.count)).sum(1)
            for counts in ngram_counts(sentences, ORDER)
        ]
        self._right = np.concatenate([np.asarray(one) for one in right], 1)  # (N, ORDER)

    def scores(self, rows: np.ndarray | None = None) -> np.ndarray:
        """Return BLEU-1..4 (4,) in 0..1 of all pictures together, or of `rows` (K,)."""
        rows = np.arange(self.count) if rows is None else np.asarray(rows)
        precision = (self._right[rows].sum(0) + _TINY) / (self._guessed[rows].sum(0) + _SMALL)
        found = np.cumprod(precision) ** (1 / np.arange(1, ORDER + 1))
        ratio = (self._own[rows].sum() + _TINY) / (self._nearest[rows].sum() + _SMALL)
        return found * np.exp(min(0.0, 1 - 1 / ratio))


def bleu(
    captions: Sequence[str],
    references: Sequence[Sequence[str]],
    *,
    words: Callable[[str], list[str]] = caption_words,
) -> np.ndarray:
    """Return BLEU-1..4 (4,) of N captions together; arguments and errors as of `CiderD`."""
    return Bleu(captions, references, words=words).scores()


def rouge_l(
    captions: Sequence[str],
    references: Sequence[Sequence[str]],
    *,
    words: Callable[[str], list[str]] = caption_words,
) -> np.ndarray:
    """Return ROUGE-L (N,) in 0..1; arguments and errors as of `CiderD`.

    Precision and recall are each the best of any reference. Nothing counts as one empty word, so
    nothing against nothing is 1.
    """
    said, wanted = checked_references(captions, references)
    texts = [*said, *(text for texts in wanted for text in texts)]
    ids, lengths = word_ids([words(text) or [""] for text in texts])
    starts, count = np.cumsum(lengths) - lengths, len(said)
    per_picture = np.array([len(texts) for texts in wanted])
    picture = np.repeat(np.arange(count), per_picture)
    common = np.concatenate([
        _common_length(
            _padded(ids, starts, lengths, picture[part : part + _AT_ONCE], -1),
            _padded(ids, starts, lengths, np.arange(count, len(texts))[part : part + _AT_ONCE], -2),
        )
        for part in range(0, len(picture), _AT_ONCE)
    ])  # fmt: skip
    first = np.cumsum(per_picture) - per_picture
    precision = np.maximum.reduceat(common / lengths[picture], first)
    recall = np.maximum.reduceat(common / lengths[count:], first)
    below = recall + BETA**2 * precision
    above = (1 + BETA**2) * precision * recall
    return np.divide(above, below, out=np.zeros(count), where=below > 0)


def _most(counts: sparse.csr_matrix, picture: np.ndarray, count: int) -> sparse.csr_matrix:
    """Return the largest count (N, V) in any of a picture's references (M, V)."""
    found, (_, width) = counts.tocoo(), counts.get_shape()
    cells, inverse = np.unique(picture[found.row] * max(width, 1) + found.col, return_inverse=True)
    most = np.zeros(len(cells))
    np.maximum.at(most, inverse, found.data)
    return sparse.csr_matrix((most, np.divmod(cells, max(width, 1))), (count, width))


def _padded(
    ids: np.ndarray, starts: np.ndarray, lengths: np.ndarray, rows: np.ndarray, fill: int
) -> np.ndarray:
    """Return the words (P, L) of some sentences, filled up to the longest."""
    place = np.arange(lengths[rows].max())
    inside = place < lengths[rows, None]
    return np.where(inside, ids[np.minimum(starts[rows, None] + place, len(ids) - 1)], fill)


def _common_length(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Return the length (P,) of the longest common subsequence of (P, A) and (P, B)."""
    best = np.zeros((len(one), other.shape[1] + 1), np.int64)
    for word in one.T:
        # a cell is the largest of the one above, the one left, and the one between plus a match
        best[:, 1:] = np.maximum(best[:, 1:], best[:, :-1] + (other == word[:, None]))
        np.maximum.accumulate(best, 1, out=best)
    return best[:, -1]
