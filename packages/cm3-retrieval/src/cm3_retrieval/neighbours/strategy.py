"""The paper's retrieval strategy: relevance, modality, diversity, query dropout.

Takes candidates with their scores and vectors; gives the positions of those taken. Paper 2.1
(arXiv 2309.02591), after RA-CM3 (arXiv 2211.12561).
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import regex

from cm3_retrieval.index.checks import checked_count, checked_integers

Item = TypeVar("Item")

_SPACELESS = r"[\p{Han}\p{Hiragana}\p{Katakana}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}\p{Tibetan}]"

_WORD = regex.compile(rf"(?={_SPACELESS})\X|(?:(?!{_SPACELESS})\X)+")
"""One character of a script without spaces, or a run of other ones."""


@dataclass(frozen=True, kw_only=True)
class RetrievalConfig:
    """The knobs of the strategy; the defaults are the paper's where it gives a value."""

    max_relevance: float = 0.9
    """Largest inner product of a candidate with the query (paper 2.1)."""

    duplicate_threshold: float = 0.9
    """Largest inner product of a candidate with one already taken. The paper gives one value, 0.9;
    here each of the two tests has its own knob."""

    max_likeness: float | None = None
    """Largest inner product of a candidate with the document itself, in training; above it both
    show the same thing twice, such as a picture saved again. None: `calibrated` finds it on the
    bank. The query's own cap does not do this: text and picture of published CLIPs lie far apart
    (cosine 0.3), so a document's score for its own picture is 0.81, and its copies' too."""

    query_dropout: float = 0.2
    """Share of a text query's tokens dropped in training (paper 2.1)."""

    num_candidates: int = 2
    """Documents kept per kind of query in the neighbour table: two by image, two by text."""

    num_context: int = 2
    """Documents before a prompt unless the call says otherwise; the paper shows 0, 1 and 2."""

    pool_size: int = 64
    """Nearest documents that the strategy considers first; more when too few of them pass."""

    def __post_init__(self) -> None:
        """Check every range."""
        for name in ("max_relevance", "duplicate_threshold", "max_likeness"):
            value = getattr(self, name)
            if not (name == "max_likeness" and value is None) and not -1 <= value <= 1:
                raise ValueError(f"{name}: wanted -1 to 1, got {value}")
        if not 0 <= self.query_dropout < 1:
            raise ValueError(f"query_dropout: wanted 0 <= share < 1, got {self.query_dropout}")
        for name, least in (("num_candidates", 1), ("num_context", 0), ("pool_size", 1)):
            checked_count(name, getattr(self, name), least)


def select(
    query_vector: np.ndarray,
    candidate_vectors: np.ndarray,
    candidate_scores: np.ndarray,
    candidate_keys: np.ndarray,
    exclude_keys: Iterable[int],
    has_both: np.ndarray,
    n: int,
    config: RetrievalConfig,
) -> np.ndarray:
    """Take up to n candidates, greedily.

    Documents with both text and image go first, then score descending, then key ascending.
    Excluded keys, candidates too close to the query, and candidates too close to one already taken
    are skipped.

    Args:
        query_vector: (dim,) float, length 1.
        candidate_vectors: (C, dim) float, rows of length 1.
        candidate_scores: (C,) float, the relevance that orders them.
        candidate_keys: (C,) integers.
        exclude_keys: Keys never taken: the document itself, its exact copies.
        has_both: (C,) bool, whether a document has text and image.
        n: Largest number to take.
        config: Thresholds.

    Returns:
        At most n positions among the candidates, in the order in which they were taken.
    """
    order = np.lexsort((candidate_keys, -candidate_scores, ~has_both.astype(bool)))
    # dot, not @: some BLAS kernels raise spurious floating-point flags, and @ warns about them.
    allowed = candidate_vectors.dot(query_vector) <= config.max_relevance
    allowed &= ~np.isin(candidate_keys, checked_integers("exclude_keys", list(exclude_keys)))
    order = order[allowed[order]]
    taken: list[int] = []
    while len(taken) < n and len(order):
        best = order[0]
        taken.append(int(best))
        likeness = candidate_vectors[order].dot(candidate_vectors[best])
        distinct = likeness <= config.duplicate_threshold
        distinct[0] = False  # itself, whatever the threshold
        order = order[distinct]
    return np.array(taken, dtype=np.int64)


def query_words(text: str) -> list[str]:
    """Split a query into the tokens that dropout drops.

    A token is a word with one space before it where it has some, or, in scripts that put no space
    between words (Chinese, Japanese, Thai and their like), one character with its marks.

    Example: "red 红苹果" gives ["red", " 红", "苹", "果"].
    """
    words = []
    for place, part in enumerate(text.split()):
        pieces = _WORD.findall(part)
        words += [f" {pieces[0]}" if place else pieces[0], *pieces[1:]]
    return words


def drop_query_tokens(
    ids_or_words: Sequence[Item], rng: np.random.Generator, share: float
) -> list[Item]:
    """Drop each token with probability `share`; at least one stays.

    Args:
        ids_or_words: Tokens of one query.
        rng: Decides which tokens are dropped.
        share: 0 to below 1.

    Returns:
        The remaining tokens, in their order.
    """
    tokens = list(ids_or_words)
    if not tokens:
        return tokens
    kept = rng.random(len(tokens)) >= share
    kept[rng.integers(len(tokens))] |= not kept.any()
    return [token for token, keep in zip(tokens, kept, strict=True) if keep]
