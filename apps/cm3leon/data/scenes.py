"""A scene: things on paper, as one SVG, with the facts and the caption that say what it shows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from cm3leon.data.names import plural, with_article
from cm3leon.data.palette import PAPERS
from cm3leon.data.recolouring import SIDE, png_of
from cm3leon.data.things import Thing

Kind = Literal["one", "placed", "two", "count", "letter"]
Cell = tuple[float, float, float, float]
"""(left, top, width, height) in units of a square of 72."""

MARGIN = 3
"""Between a thing and the edge of the picture, in the same units."""
SIZES: dict[str, float] = {"small": 27, "": 42, "large": 66}
"""The longest side of a placed thing, in the same units, by the word that the caption has."""
PLACES: dict[str, tuple[float, float]] = {
    "at the top left": (0, 0),
    "at the top": (0.5, 0),
    "at the top right": (1, 0),
    "at the left": (0, 0.5),
    "in the middle": (0.5, 0.5),
    "at the right": (1, 0.5),
    "at the bottom left": (0, 1),
    "at the bottom": (0.5, 1),
    "at the bottom right": (1, 1),
}
"""Share of the free room that is left of and above a placed thing."""
RELATIONS: dict[str, tuple[Cell, Cell]] = {
    "left of": ((2, 14, 33, 44), (37, 14, 33, 44)),
    "right of": ((37, 14, 33, 44), (2, 14, 33, 44)),
    "above": ((10, 2, 52, 33), (10, 37, 52, 33)),
    "below": ((10, 37, 52, 33), (10, 2, 52, 33)),
}
"""Cells of two things, by how the first stands to the second."""
NUMBERS: dict[str, tuple[Cell, ...]] = {
    "two": ((2, 14, 33, 44), (37, 14, 33, 44)),
    "three": ((20, 3, 32, 32), (3, 37, 32, 32), (37, 37, 32, 32)),
    "four": ((3, 3, 32, 32), (37, 3, 32, 32), (3, 37, 32, 32), (37, 37, 32, 32)),
}
"""Cells of several equal things, by their number."""


@dataclass(frozen=True, kw_only=True)
class Placed:
    """A thing in a colour, somewhere in a scene."""

    thing: Thing
    colour: str
    """Of `PAINTS`, or the thing's own."""
    scale: float = 1.0
    x: float = 0.0
    """Where the corner of the thing's own square lies, in units of a square of 72."""
    y: float = 0.0

    @property
    def natural(self) -> bool:
        """Whether the thing is as OpenMoji drew it."""
        return self.colour == self.thing.own

    @property
    def group(self) -> str:
        """The combination of thing and colour: "fox blue"."""
        return f"{self.thing.name} {self.colour}"

    @property
    def svg(self) -> str:
        """The drawing in its place."""
        at = f"translate({self.x:g} {self.y:g}) scale({self.scale:g})"
        return f'<g transform="{at}">{self.thing.painted(self.colour)}</g>'

    def facts(self, size: int) -> dict[str, Any]:
        """Return name, colour and the box in pixels of a picture of `size`."""
        corner = (self.x, self.y, self.x, self.y)
        box = [
            round((at + self.scale * side) * size / SIDE, 1)
            for at, side in zip(corner, self.thing.box, strict=True)
        ]
        return {
            "name": self.thing.name,
            "colour": self.colour,
            "natural": self.natural,
            "box": box,
        }


@dataclass(frozen=True, kw_only=True)
class Scene:
    """Things on paper."""

    kind: Kind
    things: tuple[Placed, ...]
    """In the order of the caption."""
    paper: str
    """Of `PAPERS`; no thing has its colour."""
    words: str
    """What stands on the paper: "blue fox"."""

    @property
    def caption(self) -> str:
        """The words, and the paper unless it is white."""
        return self.words if self.paper == "white" else f"{self.words} on {self.paper}"

    @property
    def group(self) -> str:
        """The combinations that it shows, each once."""
        return " + ".join(sorted({placed.group for placed in self.things}))

    def facts(self, size: int) -> dict[str, Any]:
        """Return every fact of the picture at `size` pixels."""
        return {
            "kind": self.kind,
            "things": [placed.facts(size) for placed in self.things],
            "background": self.paper,
        }

    def png(self, size: int) -> bytes:
        """Return the PNG bytes, `size` x `size` pixels."""
        return png_of("".join(placed.svg for placed in self.things), size, PAPERS[self.paper])


def one(thing: Thing, colour: str, paper: str, kind: Kind = "one") -> Scene:
    """Return a thing alone, as large as it was drawn: "blue fox on yellow"."""
    placed = Placed(thing=thing, colour=colour)
    return Scene(kind=kind, things=(placed,), paper=paper, words=said(thing, colour))


def placed(thing: Thing, colour: str, paper: str, size: str, place: str) -> Scene:
    """Return a thing of some size in some place: "small blue fox at the top left on yellow".

    A large one has no place to choose; `place` is then not read.
    """
    side = SIZES[size]
    left, top = PLACES["in the middle" if size == "large" else place]
    x0, y0, x1, y1 = thing.box
    scale = side / max(x1 - x0, y1 - y0)
    width, height = scale * (x1 - x0), scale * (y1 - y0)
    room_x, room_y = SIDE - 2 * MARGIN - width, SIDE - 2 * MARGIN - height
    cell = (MARGIN + left * room_x, MARGIN + top * room_y, width, height)
    words = [size, said(thing, colour), "" if size == "large" else place]
    return Scene(
        kind="placed",
        things=(fitted(thing, colour, cell),),
        paper=paper,
        words=" ".join(filter(None, words)),
    )


def two(things: Sequence[Thing], colours: Sequence[str], paper: str, relation: str) -> Scene:
    """Return two things: "a red apple left of a grey cat on blue"."""
    cells = RELATIONS[relation]
    first, second = (
        with_article(thing.name, said(thing, colour))
        for thing, colour in zip(things, colours, strict=True)
    )
    return Scene(
        kind="two",
        things=tuple(map(fitted, things, colours, cells)),
        paper=paper,
        words=f"{first} {relation} {second}",
    )


def count(thing: Thing, colour: str, paper: str, number: str) -> Scene:
    """Return a thing several times: "three green frogs on pink".

    Raises:
        ValueError: The thing cannot be counted.
    """
    many = plural(thing.name)
    if many is None:
        raise ValueError(f"thing: wanted one that has a plural, got {thing.name!r}")
    words = f"{number} {many}" if colour == thing.own else f"{number} {colour} {many}"
    cells = NUMBERS[number]
    things = tuple(fitted(thing, colour, cell) for cell in cells)
    return Scene(kind="count", things=things, paper=paper, words=words)


def said(thing: Thing, colour: str) -> str:
    """Return what a thing is called: "fox" in its own colour, "blue fox" in another."""
    return thing.name if colour == thing.own else f"{colour} {thing.name}"


def fitted(thing: Thing, colour: str, cell: Cell) -> Placed:
    """Return a thing as large as a cell allows, in its middle."""
    left, top, width, height = cell
    x0, y0, x1, y1 = thing.box
    scale = min(width / (x1 - x0), height / (y1 - y0))
    x = left + width / 2 - scale * (x0 + x1) / 2
    y = top + height / 2 - scale * (y0 + y1) / 2
    return Placed(thing=thing, colour=colour, scale=scale, x=x, y=y)
