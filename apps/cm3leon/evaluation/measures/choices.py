"""Accuracy of multiple choice, as of ScienceQA (Lu et al., arXiv 2209.09513)."""

from __future__ import annotations

import re
import string
import unicodedata
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from cm3leon.evaluation.measures.inputs import checked_count, checked_texts

# "answer is a lake" has no letter: one in lower case stands in brackets or before a mark or the end
_SAID = re.compile(
    r"\b(?i:answer|option|choice)(?:\s+is)?\s*:?\s*"
    r"(?:\(([A-Za-z])\)|([A-Z])\b(?!')|([a-z])(?=\s*(?:$|[).,;:!])))"
)
_ALONE = re.compile(r"\W*([A-Za-z])\W*")
_BRACKETED = re.compile(r"\(([A-Za-z])\)")
_FIRST = re.compile(r"\s*([A-Za-z])[).:](?:\s|$)")
GROUPS = ("subject", "modality", "grade")
"""Keys of facts that accuracy is told apart by."""


class Accuracy(NamedTuple):
    """A share of right choices, and of how many it is."""

    share: float
    examples: int


def chosen_option(text: str, options: Sequence[str]) -> int | None:
    """Return the place of the option that a text chooses, or None.

    The first that the text has: "the answer is B" (the last such), a letter alone, a letter in
    brackets (the last: reasons come first), a letter first ("b. lake"), the words of an option,
    one option's words within others. Lower case counts; letters beyond the options do not.

    Raises:
        ValueError: There is no option, or more than letters, or one is no text.
    """
    texts = checked_texts("options", options)
    if len(texts) > len(string.ascii_uppercase):
        raise ValueError(f"options: wanted at most 26, got {len(texts)}")
    alone, first = _ALONE.fullmatch(text), _FIRST.match(text)
    for letters in (
        ["".join(groups) for groups in _SAID.findall(text)],
        [alone[1]] if alone else [],
        _BRACKETED.findall(text),
        [first[1]] if first else [],
    ):
        places = [string.ascii_lowercase.index(letter.lower()) for letter in letters]
        within = [place for place in places if place < len(texts)]
        if within:
            return within[-1]
    said, plain = _plain(text), [_plain(option) for option in texts]
    if plain.count(said) == 1:
        return plain.index(said)
    named = [place for place, option in enumerate(plain) if option and f" {option} " in f" {said} "]
    # "salt water" names "water", too: an option within another that is named does not count
    whole = [
        place
        for place in named
        if not any(plain[place] in plain[o] for o in named if plain[o] != plain[place])
    ]
    return whole[0] if len(whole) == 1 else None


def right_choices(
    said: Sequence[str], options: Sequence[Sequence[str]], answers: Sequence[int]
) -> np.ndarray:
    """Tell which of N texts choose the right option (N,) bool; no choice is wrong.

    The ScienceQA authors guess at random where no choice can be read. This does not.

    Args:
        said: N texts.
        options: N lists of options.
        answers: (N,) the place of the right option, from 0.

    Raises:
        ValueError: The numbers differ, or an answer is none of its options.
    """
    texts = checked_texts("said", said)
    checked_count("options", options, len(texts))
    checked_count("answers", answers, len(texts))
    for place, (answer, some) in enumerate(zip(answers, options, strict=True)):
        if not 0 <= answer < len(some):
            raise ValueError(
                f"answers[{place}]: wanted the place of one of {len(some)} options, got {answer}"
            )
    chosen = [chosen_option(text, some) for text, some in zip(texts, options, strict=True)]
    return np.array([one == answer for one, answer in zip(chosen, answers, strict=True)])


def accuracy_by(
    right: np.ndarray, facts: Sequence[Mapping[str, Any]], groups: Sequence[str] = GROUPS
) -> dict[str, dict[str, Accuracy]]:
    """Return the accuracy by subject, modality and grade: `{"subject": {"biology": Accuracy}}`.

    Records whose facts lack a key do not count for it, and a key that none has is left out. Grades
    ("grade3") are in two groups, as ScienceQA reports them: "1-6" and "7-12".

    Args:
        right: (N,) bool.
        facts: N.
        groups: Keys of facts.

    Raises:
        ValueError: The numbers differ.
    """
    checked_count("facts", facts, len(right))
    found: dict[str, dict[str, Accuracy]] = {}
    for key in groups:
        hits: dict[str, list[bool]] = {}
        for hit, fact in zip(right, facts, strict=True):
            if fact.get(key) is not None:
                hits.setdefault(_group(key, str(fact[key])), []).append(bool(hit))
        if hits:
            found[key] = {
                name: Accuracy(sum(some) / len(some), len(some))
                for name, some in sorted(hits.items())
            }
    return found


def _group(key: str, value: str) -> str:
    number = re.fullmatch(r"(?:grade)?\s*([0-9]+)", value) if key == "grade" else None
    return value if number is None else "1-6" if int(number[1]) <= 6 else "7-12"


def _plain(text: str) -> str:
    """Return the words, in lower case, without punctuation at their ends."""
    words = unicodedata.normalize("NFC", text).casefold().split()
    marks = string.punctuation.replace("-", "").replace("+", "")  # -3 is not 3
    return " ".join(filter(None, (word.strip(marks) for word in words)))
