"""Whether what was detected in a picture is what its prompt asks for (arXiv 2310.11513)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from cm3leon.evaluation.objects.prompts import Prompt, Wanted, relation

Box = tuple[float, float, float, float]
"""(x0, y0, x1, y1) in pixels."""
SURE, COUNTED = 0.3, 0.9
"""Scores from which a detection counts, the second where things are counted (GenEval's)."""


@dataclass(frozen=True, kw_only=True)
class Detected:
    """A thing that was found in a picture."""

    name: str
    box: Box
    score: float = 1.0
    colour: str | None = None


@dataclass(frozen=True, kw_only=True)
class Seen:
    """What a detector finds in a picture."""

    things: tuple[Detected, ...]
    background: str | None = None
    """None where the detector does not say."""


class Detector(Protocol):
    """What finds things in pictures."""

    @property
    def description(self) -> dict[str, str]:
        """Tool, version and weights: results by different detectors cannot be compared."""
        ...

    def __call__(self, pixels: np.ndarray) -> list[Seen]:
        """Return what is in each of some pictures (N, H, W, 3) uint8."""
        ...


ASPECTS = ("thing", "count", "colour", "position", "background")


def check(prompt: Prompt, seen: Seen) -> dict[str, bool]:
    """Return which of the aspects that a prompt asks for are right, and whether all are.

    Returns:
        "correct", and those of `ASPECTS` that are asked for. A thing that is missing makes its
        colour and position wrong, too.
    """
    counting = any(one.count > 1 for one in prompt.include)
    least = COUNTED if counting else SURE
    sure = [thing for thing in seen.things if thing.score >= least]
    found: dict[str, list[bool]] = {}
    for one in prompt.include:
        named = [thing for thing in sure if thing.name == one.name]
        found.setdefault("thing", []).append(bool(named))
        if one.count > 1:
            found.setdefault("count", []).append(len(named) >= one.count)
        if one.colour is not None:
            of_colour = [thing for thing in named if thing.colour == one.colour]
            found.setdefault("colour", []).append(len(of_colour) >= one.count)
        if one.position is not None:
            found.setdefault("position", []).append(_stands(one, named, prompt, sure))
    for one in prompt.exclude:
        named = [thing for thing in sure if thing.name == one.name]
        found.setdefault("count", []).append(len(named) < one.count)
    if prompt.background is not None and seen.background is not None:
        found["background"] = [seen.background == prompt.background]
    aspects = {name: all(values) for name, values in found.items()}
    return {"correct": all(aspects.values()), **aspects}


def _stands(
    one: Wanted, named: Sequence[Detected], prompt: Prompt, sure: Sequence[Detected]
) -> bool:
    assert one.position is not None  # the caller has looked
    word, place = one.position
    others = [thing for thing in sure if thing.name == prompt.include[place].name]
    return any(relation(a.box, b.box) == word for a in named for b in others if a is not b)
