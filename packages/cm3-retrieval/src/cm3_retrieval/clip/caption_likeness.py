"""How alike captions are by their words: the cosine of their tf-idf vectors (Salton 1975).

Rare words name things, common ones their colours and places. A CLIP that is trained on a few
thousand pictures tells captions apart by whatever is easiest, colours first; its vectors then put a
blue fox beside a blue car. With these cosines as the measure, it lies beside the other foxes.
"""

import re
from collections.abc import Sequence

import numpy as np

_WORD = re.compile(r"\w+(?:['’-]\w+)*")


class CaptionLikeness:
    """The words of N captions, in lower case and without punctuation, and how rare they are.

    Args:
        captions: N texts; one without any word is a word itself.
    """

    def __init__(self, captions: Sequence[str]) -> None:
        """Count in how many different captions each word occurs."""
        said = [sorted(set(_WORD.findall(text.lower()))) or [text] for text in captions]
        lengths = np.array([len(words) for words in said])
        every = np.array([word for words in said for word in words], dtype=object)
        vocabulary, numbers = np.unique(every, return_inverse=True)
        inside = np.arange(lengths.max()) < lengths[:, None]  # (N, W)
        self._words = np.full(inside.shape, len(vocabulary))  # a word of weight 0 fills up
        self._words[inside] = numbers
        different = np.unique(self._words, axis=0)
        counts = np.bincount(different.ravel(), minlength=len(vocabulary) + 1)
        self._idf = np.log((1 + len(different)) / np.maximum(1, counts))
        self._idf[-1] = 0.0
        # captions that share their rarest word, of those that others have too, are one family
        shared = np.where(inside & (counts[self._words] > 1), counts[self._words], np.inf)
        place = shared.argmin(axis=1)
        family = np.where(
            np.isfinite(shared.min(axis=1)),
            self._words[np.arange(len(said)), place],
            len(vocabulary) + 1 + np.arange(len(said)),  # alone
        )
        self._by_family = np.argsort(family, kind="stable")
        _, self._family, sizes = np.unique(family, return_inverse=True, return_counts=True)
        self._first, self._size = np.cumsum(sizes) - sizes, sizes

    def partners(self, rows: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Draw for each of B captions one with the same rarest word, perhaps itself: (B,) rows."""
        family = self._family[rows]
        return self._by_family[self._first[family] + rng.integers(self._size[family])]

    def cosines(self, rows: np.ndarray, others: np.ndarray) -> np.ndarray:
        """Return the cosines (B, T) of the tf-idf vectors of B captions and T others."""
        words = np.unique(np.concatenate([self._words[rows].ravel(), self._words[others].ravel()]))
        return _bags(self._words[rows], words, self._idf).dot(
            _bags(self._words[others], words, self._idf).T
        )


def _bags(captions: np.ndarray, words: np.ndarray, idf: np.ndarray) -> np.ndarray:
    """Return vectors of length 1 over `words` (U,) of captions (B, W), float32 (B, U)."""
    bags = np.zeros((len(captions), len(words)), np.float32)
    places = np.searchsorted(words, captions)
    np.put_along_axis(bags, places, idf[captions].astype(np.float32), axis=1)
    lengths = np.linalg.norm(bags, axis=1, keepdims=True)
    return bags / np.where(lengths > 0, lengths, 1)
