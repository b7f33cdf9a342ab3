"""A scene: things on paper, as one SVG, with the facts and the caption that say what it shows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from cm3leon.data.palette import PAPERS
from cm3leon.data.recolouring import SIDE, png_of
from cm3leon.data.things import Thing

Kind = Literal["one", "placed", "two", "count", "letter"]


@dataclass(frozen=True, kw_only=True)
class Placed:
    """A thing in a colour, somewhere in a scene."""

    thing: Thing
    colour: str
    """Of `PAINTS`, or the thing's own."""
    scale: float = 1.0
    x: float = 0.0
    """Where the drawing's left edge lies, in units of a square of 72."""
    y: float = 0.0

    @property
    def natural(self) -> bool:
        """Whether the thing is as OpenMoji drew it."""
        return self.colour == self.thing.own

    @property
    def said(self) -> str:
        """What it is called: "fox" in its own colour, "blue fox" in another."""
        return self.thing.name if self.natural else f"{self.colour} {self.thing.name}"

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
        unit = size / SIDE
        x0, y0, x1, y1 = self.thing.box
        box = [
            (self.x + self.scale * x0) * unit,
            (self.y + self.scale * y0) * unit,
            (self.x + self.scale * x1) * unit,
            (self.y + self.scale * y1) * unit,
        ]
        return {
            "name": self.thing.name,
            "colour": self.colour,
            "natural": self.natural,
            "box": [round(side, 1) for side in box],
        }


@dataclass(frozen=True, kw_only=True)
class Scene:
    """Things on paper."""

    kind: Kind
    things: tuple[Placed, ...]
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


def one(thing: Thing, colour: str, paper: str) -> Scene:
    """Return a thing alone, as large as OpenMoji draws it: "blue fox on yellow"."""
    placed = Placed(thing=thing, colour=colour)
    return Scene(kind="one", things=(placed,), paper=paper, words=placed.said)
