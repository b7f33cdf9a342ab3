"""What the readers of published sets give: examples of a task, whose pictures are not read yet."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cm3leon.data.pairs import key_of
from cm3leon.data.raw_files import Unusable, read_file
from cm3leon.instructions.sets import Split

Box = tuple[float, float, float, float]
"""(x0, y0, x1, y1)."""
Picture = Callable[[], bytes]
"""Gives a picture's file. Raises OSError or ValueError. Equal ones give the same file."""
HELD_OUT = 5
"""Percent of the examples in each of validation and test, where the publisher names no split."""


@dataclass(frozen=True, kw_only=True)
class Example:
    """One record of a task."""

    name: str
    """Unique in the set; the key comes from it (`cm3leon.data.pairs.key_of`)."""
    texts: Mapping[str, str]
    """By the fields of the task's templates."""
    pictures: Mapping[str, Picture]
    """By the fields of the task's templates."""
    boxes: tuple[tuple[str, Box], ...] = ()
    """(label, box) of the things in the field `image`, in pixels of the raw picture."""
    boxes_are_shares: bool = False
    """Whether boxes are given in shares of the raw picture's sides instead, 0 to 1."""
    facts: Mapping[str, Any] = field(default_factory=dict)
    """What scoring needs, JSON values: all answers, the question's id, choices, all captions."""
    split: Split
    source: str
    """Where it comes from: the file, and the picture or record in it."""
    licence: str = ""
    """Of its pictures; empty where the publisher's file has none."""


@dataclass(frozen=True, kw_only=True)
class Unneeded:
    """A record that is as it should be, but of no use: it is counted, and is not a fault."""

    reason: str


Found = Example | Unusable | Unneeded
Examples = Iterator[Found]


@dataclass(frozen=True)
class PictureFile:
    """A picture in a file of its own."""

    path: Path

    def __call__(self) -> bytes:
        """Read it."""
        return read_file(self.path)


def split_by_hash(group: str) -> Split:
    """Return the split of an example whose publisher names none; a group stays together."""
    place = key_of(group) % 100
    if place < HELD_OUT:
        return "test"
    return "validation" if place < 2 * HELD_OUT else "train"
