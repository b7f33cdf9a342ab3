"""What a picture shall show: things by number, colour and place, and the background.

The form of a prompt is GenEval's (arXiv 2310.11513), so that its `evaluation_metadata.jsonl` is
read as it is; a background is ours.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from cm3_retrieval.text_file import parse_object

POSITIONS = ("left of", "right of", "above", "below")


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """A thing that shall be there."""

    name: str
    count: int = 1
    """How many at least; of things that shall not be there: how many are too many."""
    colour: str | None = None
    position: tuple[str, int] | None = None
    """One of `POSITIONS`, and the place of the thing, before it in `Prompt.include`, it is of."""


@dataclass(frozen=True, kw_only=True)
class Prompt:
    """What a picture shall show."""

    text: str
    tag: str
    """Kind of prompt: figures are given for each, too."""
    include: tuple[Wanted, ...]
    exclude: tuple[Wanted, ...] = ()
    background: str | None = None


def read_prompts(path: Path) -> list[Prompt]:
    """Read a file of GenEval's form: a JSON object a line.

    Raises:
        OSError: The file is missing or cannot be read.
        ValueError: A line is of another form; names file and line.
    """
    lines = path.read_bytes().splitlines()
    found = []
    for number, line in enumerate(lines, 1):
        if line.strip():
            where = f"{path}, line {number}"
            found.append(prompt_of(parse_object(line, where), where))
    if not found:
        raise ValueError(f"{path}: wanted prompts, one a line, got none")
    return found


def prompt_of(said: Mapping[str, Any], where: str) -> Prompt:
    """Return the prompt that JSON values say.

    Raises:
        ValueError: They say none; names where they are from.
    """
    try:
        include = tuple(_wanted(one) for one in said["include"])
        found = Prompt(
            text=_text(said["prompt"]),
            tag=_text(said["tag"]),
            include=include,
            exclude=tuple(_wanted(one) for one in said.get("exclude", ())),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{where}: wanted a prompt of GenEval's form, got {error!r}") from None
    for place, one in enumerate(include):
        if one.position is not None and not 0 <= one.position[1] < place:
            raise ValueError(
                f"{where}: wanted a position of a thing before it, got {one.position} of the "
                f"thing {place}"
            )
    return found


def prompt_of_facts(text: str, facts: Mapping[str, Any]) -> Prompt | None:
    """Return what the caption of an embedded composition asks for; None of one without things.

    Each thing's colour is asked for, equal things by their exact number, and how the first of two
    things stands to the second as their boxes say.
    """
    kind, things = facts["kind"], facts["things"]
    if not things or kind == "letter":
        return None
    counted = Counter((thing["name"], thing["colour"]) for thing in things)
    include = tuple(
        Wanted(name=name, count=count, colour=colour) for (name, colour), count in counted.items()
    )
    names = Counter(thing["name"] for thing in things)
    exclude = tuple(Wanted(name=name, count=count + 1) for name, count in names.items())
    stands = relations(things[0]["box"], things[1]["box"]) if kind == "two" else set()
    if len(include) == 2 and len(stands) == 1:
        first, second = include
        include = (second, replace(first, position=(stands.pop(), 0)))
    return Prompt(
        text=text,
        tag="counting" if kind == "count" else kind,
        include=include,
        exclude=exclude,
        background=facts["background"],
    )


APART = 0.1
"""Share of both things' sides by which the way between their middles is shortened."""


def relations(one: Any, other: Any) -> set[str]:
    """Return how a box (x0, y0, x1, y1) stands to another: none, one or two of `POSITIONS`.

    GenEval's rule: of the way between the middles, shortened on each axis by a tenth of the boxes'
    sides, an axis counts that makes up more than half of the whole way's length.
    """
    whole, left = [], []
    for axis in (0, 1):
        middle = (one[axis] + one[axis + 2] - other[axis] - other[axis + 2]) / 2
        sides = abs(one[axis + 2] - one[axis]) + abs(other[axis + 2] - other[axis])
        whole.append(middle)
        left.append(math.copysign(max(abs(middle) - APART * sides, 0.0), middle))
    length = math.hypot(*whole)
    if not length or max(map(abs, left)) < 1e-3:
        return set()
    x, y = left[0] / length, left[1] / length
    sides = {"left of": x < -0.5, "right of": x > 0.5, "above": y < -0.5, "below": y > 0.5}
    return {name for name, holds in sides.items() if holds}


def _wanted(said: Mapping[str, Any]) -> Wanted:
    position = said.get("position")
    if position is not None:
        word, place = position
        if word not in POSITIONS or not isinstance(place, int):
            raise ValueError(f"position {position}")
        position = (word, place)
    count = said.get("count", 1)
    if not isinstance(count, int) or count < 1:
        raise ValueError(f"count {count!r}")
    colour = said.get("color")
    return Wanted(
        name=_text(said["class"]),
        count=count,
        colour=None if colour is None else _text(colour),
        position=position,
    )


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"wanted text, got {value!r}")
    return value
