"""Letters and digits as things, in the manner of OpenMoji: a flat fill and a black outline.

The outlines are those of DejaVu Sans Bold, the font that matplotlib ships.
"""

from __future__ import annotations

import string
from functools import lru_cache
from pathlib import Path
from typing import Any

import matplotlib
from fontTools.pens.boundsPen import BoundsPen
from fontTools.pens.svgPathPen import SVGPathPen
from fontTools.ttLib import TTFont

from cm3leon.data.recolouring import SIDE, coverage
from cm3leon.data.things import Thing

FILL = "3f3f3f"
"""Of a letter in its own colour, black."""
HEIGHT, WIDTH = 52, 60
"""What a letter may fill, in units of a square of 72."""
STROKE = 2


@lru_cache(maxsize=1)
def bold_font() -> tuple[Any, dict[int, str]]:
    """Return the glyphs by name, and the names by character."""
    font = TTFont(Path(matplotlib.get_data_path()) / "fonts/ttf/DejaVuSans-Bold.ttf")
    return font.getGlyphSet(), font.getBestCmap() or {}


def find_letters() -> list[Thing]:
    """Return the 26 capital letters and the ten digits: "letter K", "digit 7"."""
    glyphs, glyph_of = bold_font()
    found = []
    for character in string.ascii_uppercase + string.digits:
        bounds, path = BoundsPen(glyphs), SVGPathPen(glyphs)
        glyphs[glyph_of[ord(character)]].draw(bounds)
        glyphs[glyph_of[ord(character)]].draw(path)
        svg = _outlined(path.getCommands(), bounds.bounds)
        measured = coverage(svg)
        kind = "digit" if character.isdigit() else "letter"
        found.append(
            Thing(
                name=f"{kind} {character}",
                category="letters",
                own=measured.colour,
                svg=svg,
                fills=measured.fills,
                box=measured.box,
            )
        )
    return found


def _outlined(path: str, bounds: tuple[float, float, float, float]) -> str:
    """Return a glyph in the middle of the square; fonts count upwards, SVG downwards."""
    x0, y0, x1, y1 = bounds
    scale = min(WIDTH / (x1 - x0), HEIGHT / (y1 - y0))
    x, y = SIDE / 2 - scale * (x0 + x1) / 2, SIDE / 2 + scale * (y0 + y1) / 2
    return (
        f'<path transform="translate({x:.3f} {y:.3f}) scale({scale:.5f} {-scale:.5f})" '
        f'fill="#{FILL}" stroke="#000000" stroke-width="{STROKE / scale:.1f}" '
        f'stroke-linejoin="round" d="{path}"/>'
    )
