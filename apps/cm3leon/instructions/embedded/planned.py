"""What an embedded record is before its pictures are drawn, and what records are drawn from."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, TypeVar

import numpy as np

from cm3leon.data.plan import papers_for
from cm3leon.data.things import Thing
from cm3leon.instructions.embedded.pictures import Drawing
from cm3leon.instructions.sets import Split

Painted = tuple[Thing, str]
"""A thing and its colour."""
Option = TypeVar("Option")
TRIES = 1000
"""Draws after which what is wanted is surely not there."""


@dataclass(frozen=True, kw_only=True)
class Planned:
    """A record of a task."""

    task: str
    split: Split
    texts: Mapping[str, str]
    pictures: Mapping[str, Drawing]
    facts: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Pool:
    """The combinations of thing and colour that one split may show."""

    split: Split
    new: Sequence[Painted]
    """The split's own: what is asked for."""
    known: Sequence[Painted]
    """Those of training: what else stands in a record. In training the same."""
    rng: np.random.Generator

    def choice(self, options: Sequence[Option]) -> Option:
        """Draw one of some options."""
        return options[int(self.rng.integers(len(options)))]

    def one(self) -> Painted:
        """Draw one of the split's combinations.

        Raises:
            ValueError: There is none.
        """
        if not self.new:
            raise self.lacks("one combination of thing and colour")
        return self.choice(self.new)

    def lacks(self, wanted: str) -> ValueError:
        """Return the error of a pool that has too little."""
        return ValueError(
            f"compositions: wanted {wanted} in {self.split}, got too few combinations of thing and "
            f"colour, {len(self.new)}; the base needs more things or larger held-out shares"
        )

    def several(self, number: int) -> list[Painted]:
        """Draw some of the split's combinations, each of another thing and in another colour.

        Raises:
            ValueError: There are not so many.
        """
        found: list[Painted] = []
        for _ in range(TRIES):
            thing, colour = self.one()
            if all(thing.name != one.name and colour != its for one, its in found):
                found.append((thing, colour))
            if len(found) == number:
                return found
        raise self.lacks(f"{number} things in different colours")

    def other_thing(self, thing: Thing, colour: str) -> Thing | None:
        """Draw another thing that training shows in a colour, None if there is none."""
        found = [one for one in self._by_colour[colour] if one.name != thing.name]
        return self.choice(found) if found else None

    def other_colour(self, thing: Thing, colour: str) -> str | None:
        """Draw another colour that training shows a thing in, None if there is none."""
        found = [one for one in self._by_thing[thing.name] if one != colour]
        return self.choice(found) if found else None

    def papers(self, *colours: str) -> list[str]:
        """Return the backgrounds that have none of some colours, in random order."""
        return papers_for(colours, self.rng)

    @cached_property
    def _by_colour(self) -> dict[str, list[Thing]]:
        found: dict[str, list[Thing]] = defaultdict(list)
        for thing, colour in self.known:
            found[colour].append(thing)
        return found

    @cached_property
    def _by_thing(self) -> dict[str, list[str]]:
        found: dict[str, list[str]] = defaultdict(list)
        for thing, colour in self.known:
            found[thing.name].append(colour)
        return found
