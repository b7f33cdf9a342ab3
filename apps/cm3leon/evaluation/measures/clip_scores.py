"""CLIP score of pictures and captions, and CLIP direction of edits, from vectors of any CLIP.

A figure says which CLIP it is of (`features.clip` describes it); others are another scale.
"""

from __future__ import annotations

import numpy as np

from cm3leon.evaluation.measures.inputs import checked_count, checked_pair


def clip_scores(pictures: np.ndarray, texts: np.ndarray) -> np.ndarray:
    """Return 100 * max(cosine, 0) of each picture and its text, (N, D) and (N, D) -> (N,).

    The CLIP score of a set is the mean (Hessel et al., arXiv 2104.08718, who take 2.5 for the 100).

    Raises:
        ValueError: Shapes differ, a number is NaN or infinite, or a vector is 0.
    """
    return 100 * np.maximum(clip_similarities(pictures, texts, ("pictures", "texts")), 0)


def clip_similarities(
    one: np.ndarray, other: np.ndarray, names: tuple[str, str] = ("one", "other")
) -> np.ndarray:
    """Return the cosine of each pair, (N, D) and (N, D) -> (N,); errors as `clip_scores`.

    Of pictures before and after an edit it says how much was kept.
    """
    found = checked_pair(names, one, other)
    checked_count(names[1], found[1], len(found[0]))
    for name, rows in zip(names, found, strict=True):
        zero = np.flatnonzero(~rows.any(1))
        if len(zero):
            raise ValueError(f"{name}[{zero[0]}]: wanted a vector with a direction, got zeros")
    return _cosines(*found)


def clip_directions(
    before: np.ndarray, after: np.ndarray, before_texts: np.ndarray, after_texts: np.ndarray
) -> np.ndarray:
    """Return how far each picture changed as its caption did, the cosine of the changes (N,).

    Directional similarity of Gal et al. (arXiv 2108.00946), as InstructPix2Pix reports it (Brooks
    et al., arXiv 2211.09800). Where picture or text did not change it is 0.

    Args:
        before: (N, D) vectors of the pictures before the edit.
        after: (N, D) after it.
        before_texts: (N, D) vectors of their captions.
        after_texts: (N, D).

    Raises:
        ValueError: Shapes differ, or a number is NaN or infinite.
    """
    pictures = checked_pair(("before", "after"), before, after)
    texts = checked_pair(("before_texts", "after_texts"), before_texts, after_texts)
    checked_count("after", pictures[1], len(pictures[0]))
    checked_count("before_texts", texts[0], len(pictures[0]))
    checked_count("after_texts", texts[1], len(pictures[0]))
    checked_pair(("before", "before_texts"), pictures[0], texts[0])
    return _cosines(pictures[1] - pictures[0], texts[1] - texts[0])


def _cosines(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    norms = np.linalg.norm(one, axis=1) * np.linalg.norm(other, axis=1)
    product = np.einsum("nd,nd->n", one, other)
    return np.divide(product, norms, out=np.zeros(len(one)), where=norms > 0).clip(-1, 1)
