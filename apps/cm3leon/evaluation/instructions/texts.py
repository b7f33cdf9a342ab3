"""Figures of texts that instructions ask for: answers, choices, captions."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

ASKED = {
    "thing": "thing", "colour": "colour", "background": "background", "number": "number",
    "beside": "beside", "is_thing": "yes_no", "is_colour": "yes_no",
}  # fmt: skip
"""The figure that each kind of question counts for."""

HOW = {
    "ask.thing": "What is it: share of answers that are the thing's name.",
    "ask.colour": "What colour is it: share of answers that are the thing's colour.",
    "ask.background": "What is behind it: share of answers that are the background's colour.",
    "ask.number": "How many are there: share of right answers.",
    "ask.beside": "What is left of, right of, above or below a thing: share of right answers.",
    "ask.yes_no": "Is it a thing, is it a colour: share whose last word, yes or no, is right.",
    "choice.answer": "Choices of three, asked for the answer alone: share of right letters.",
    "choice.reasoned": "The same, asked for the reason first: share of right letters.",
    "choice.reason": "Share of right reasons.",
    "caption.short": "Short captions: share that are word for word the picture's.",
    "caption.long": "Long captions: share of their sentences that are the true ones.",
}


def score_answers(said: Sequence[str], records: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Score answers to questions.

    Args:
        said: N answers.
        records: N, each `texts` with the `answer`, and `facts` with the kind of `question`.
    """
    found: dict[str, list[bool]] = {}
    for text, record in zip(said, records, strict=True):
        kind = ASKED[record["facts"]["question"]]
        one, true = _plain(text), _plain(record["texts"]["answer"])
        if kind == "yes_no":  # it stands behind what is seen
            one, true = one.rpartition(" ")[2], true.rpartition(" ")[2]
        found.setdefault(kind, []).append(one == true)
    return {name: float(np.mean(values)) for name, values in found.items()}


def score_choices(
    short: Sequence[str], reasoned: Sequence[str], records: Sequence[Mapping[str, Any]]
) -> dict[str, float]:
    """Score choices, asked for the letter (N,) and for reason and letter (N,)."""
    answers = [record["texts"]["answer"] for record in records]
    reasons = [record["texts"]["explanation"] for record in records]

    def letter(text: str) -> str:
        return (re.findall(r"\([A-Z]\)", text) or [""])[-1]

    return {
        "answer": _share(letter(a) == b for a, b in zip(short, answers, strict=True)),
        "reasoned": _share(letter(a) == b for a, b in zip(reasoned, answers, strict=True)),
        "reason": _share(a.startswith(b) for a, b in zip(reasoned, reasons, strict=True)),
    }


def score_captions(
    short: Sequence[str],
    short_records: Sequence[Mapping[str, Any]],
    long: Sequence[str],
    long_records: Sequence[Mapping[str, Any]],
) -> dict[str, float]:
    """Score short and long captions of records."""
    sentences = []
    for text, record in zip(long, long_records, strict=True):
        wanted = record["texts"]["caption"].split(". ")
        said = set(text.rstrip(".").split(". "))
        sentences.append(np.mean([one.rstrip(".") in said for one in wanted]))
    texts = [record["texts"]["caption"] for record in short_records]
    return {
        "short": _share(a == b for a, b in zip(short, texts, strict=True)),
        "long": float(np.mean(sentences)),
    }


def _plain(text: str) -> str:
    return text.strip().strip(".").casefold()


def _share(hits: Any) -> float:
    return float(np.mean(list(hits)))
