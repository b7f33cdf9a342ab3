"""Whether what was detected in a picture is what its prompt asks for (arXiv 2310.11513)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from cm3leon.evaluation.objects.prompts import Prompt, relations

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

    GenEval's rule: of each thing that is asked for the surest detections count, as many as are
    asked for. All of them must have the colour, and stand to all of the other thing's as is said; a
    thing that was not found, or not in its colour, is nothing to stand to.

    Returns:
        "correct", and those of `ASPECTS` that are asked for.
    """
    least = COUNTED if prompt.tag == "counting" else SURE
    sure = sorted((one for one in seen.things if one.score >= least), key=lambda one: -one.score)
    found: dict[str, list[bool]] = {}
    matched: list[list[Detected]] = []
    for one in prompt.include:
        mine = [thing for thing in sure if thing.name == one.name][: one.count]
        right = len(mine) == one.count
        found.setdefault("thing", []).append(bool(mine))
        if one.count > 1:
            found.setdefault("count", []).append(right)
        if one.colour is not None:
            right = right and all(thing.colour == one.colour for thing in mine)
            found.setdefault("colour", []).append(right)
        if one.position is not None:
            word, place = one.position
            stands = right and bool(matched[place])
            stands = stands and all(
                word in relations(a.box, b.box) for a in mine for b in matched[place]
            )
            found.setdefault("position", []).append(stands)
            right = right and stands
        matched.append(mine if right else [])
    for one in prompt.exclude:
        number = sum(thing.name == one.name for thing in sure)
        found.setdefault("count", []).append(number < one.count)
    if prompt.background is not None and seen.background is not None:
        found["background"] = [seen.background == prompt.background]
    aspects = {name: all(values) for name, values in found.items()}
    return {"correct": all(aspects.values()), **aspects}
