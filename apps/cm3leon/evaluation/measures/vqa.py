"""VQA accuracy: agreement with ten people (Antol et al., arXiv 1505.00468).

The rules are those of the official code for VQA v2, whose result depends on whether the ten agree:
only where they differ are prediction and answers normalised. Some codes always normalise, so both
figures exist; say which one is meant.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from cm3leon.evaluation.measures.inputs import checked_count, checked_texts

PEOPLE = 10
_PUNCTUATION = ';/[]"{}()=+\\_-><@`,?!'
_DIGIT_COMMA_DIGIT = re.compile(r"[0-9],[0-9]")
_FULL_STOP = re.compile(r"\.(?![0-9])")
_FULL_STOPS = 32  # the official code hands a flag over as the most to replace
_NUMBERS = "zero one two three four five six seven eight nine ten".split()
_DIGITS = {"none": "0"} | {word: str(number) for number, word in enumerate(_NUMBERS)}
_ARTICLES = {"a", "an", "the"}
_ENDINGS = {
    "n't": "ai are ca could did does do had has have is might must need ought sha should was were "
    "wo would",
    "'d": "he how it someone something there they where who you",
    "'ll": "how it somebody someone something they what who why you",
    "'s": "he how somebody someone that there what when where who why",
    "'ve": "could might must not should they we what where who would you",
    "'re": "there they what why you",
}
_TWICE = {
    "n't've": "could had might should would",
    "'d've": "he it someone something somebody there they we who you she",
    "'all'll": "y",
}
_OTHERS = {
    "maam": "ma'am", "oclock": "o'clock", "twas": "'twas", "yall": "y'all", "ow's'at": "'ow's'at",
    "'ows'at": "'ow's'at", "'ow'sat": "'ow's'at", "yall'd've": "y'all'd've",
    "y'alld've": "y'all'd've", "y'all'dve": "y'all'd've",
    "somebody'd": "somebodyd",  # the wrong way round in the official code
}  # fmt: skip


class VqaAccuracy(NamedTuple):
    """Accuracy of each of N answers in 0..1, by both rules; the figure of a set is the mean."""

    official: np.ndarray
    """(N,) normalised only where the ten answers differ, as the official code does it."""
    always_normalised: np.ndarray
    """(N,) normalised in any case."""


def vqa_accuracy(said: Sequence[str], answers: Sequence[Sequence[str]]) -> VqaAccuracy:
    """Score answers to questions.

    With k of the ten alike, leaving out each of the ten in turn gives 0, 0.3, 0.6, 0.9, 1.

    Args:
        said: N predictions.
        answers: N times ten people's answers.

    Raises:
        ValueError: A text is missing, or there are not ten answers.
    """
    found, wanted = checked_texts("said", said), []
    for i, texts in enumerate(answers):
        wanted.append(checked_texts(f"answers[{i}]", texts))
        if len(texts) != PEOPLE:
            raise ValueError(f"answers[{i}]: wanted {PEOPLE} answers, got {len(texts)}")
    checked_count("answers", wanted, len(found))
    plain = [
        [_spaced(text) for text in [one, *ten]] for one, ten in zip(found, wanted, strict=True)
    ]
    same = np.array([[text == one for text in ten] for one, *ten in plain])
    normal = [[normalised_answer(text) for text in texts] for texts in plain]
    same_normal = np.array([[text == one for text in ten] for one, *ten in normal])
    agree = np.array([len(set(ten)) == 1 for _, *ten in plain])
    return VqaAccuracy(
        _leaving_one_out(np.where(agree[:, None], same, same_normal)), _leaving_one_out(same_normal)
    )


@lru_cache(maxsize=1 << 16)
def normalised_answer(text: str) -> str:
    """Return an answer as the official code normalises it.

    >>> normalised_answer("the two red-brown dogs.")
    '2 red brown dogs'
    """
    text = original = _spaced(text)
    everywhere = _DIGIT_COMMA_DIGIT.search(original)
    for mark in _PUNCTUATION:
        if mark in text:
            beside_space = f"{mark} " in original or f" {mark}" in original
            text = text.replace(mark, "" if beside_space or everywhere else " ")
    words = _FULL_STOP.sub("", text, count=_FULL_STOPS).lower().split()
    words = [_DIGITS.get(word, word) for word in words]
    return " ".join(_CONTRACTIONS.get(word, word) for word in words if word not in _ARTICLES)


def _spaced(text: str) -> str:
    return text.replace("\n", " ").replace("\t", " ").strip()


def _leaving_one_out(same: np.ndarray) -> np.ndarray:
    """Return the mean (N,) over the ten of min(1, matches among the other nine / 3)."""
    others = same.sum(1, keepdims=True) - same
    return np.minimum(1, others / 3).mean(1)


def _contractions() -> dict[str, str]:
    """Return what has lost an apostrophe, and how it is written."""
    found = dict(_OTHERS)
    for ending, stems in _ENDINGS.items():
        found |= {stem + ending.replace("'", ""): stem + ending for stem in stems.split()}
    for ending, stems in _TWICE.items():
        for whole in (stem + ending for stem in stems.split()):
            first, second = (place.start() for place in re.finditer("'", whole))
            found[whole[:first] + whole[first + 1 :]] = whole
            found[whole[:second] + whole[second + 1 :]] = whole
    return found


_CONTRACTIONS = _contractions()
