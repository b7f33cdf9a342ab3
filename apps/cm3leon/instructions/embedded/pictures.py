"""Drawings of embedded records: scenes, guides that are made of scenes, and writing."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from fontTools.pens.boundsPen import BoundsPen
from fontTools.pens.svgPathPen import SVGPathPen
from fontTools.pens.transformPen import TransformPen
from scipy import ndimage

from cm3leon.data.letters import bold_font
from cm3leon.data.palette import PAINTS, PAPERS
from cm3leon.data.recolouring import SIDE, pixels_of_png, png_of
from cm3leon.data.scenes import Placed, Scene
from cm3leon.instructions.features import open_feature

CLASSES = {
    "activities": "red",
    "animals & nature": "green",
    "food & drink": "orange",
    "objects": "blue",
    "travel & places": "purple",
}
"""The colour of each category in a segmentation map."""
WIDE, HIGH = 62, 50
"""What writing may fill, in units of a square of 72."""


@dataclass(frozen=True)
class Guide:
    """A feature of a scene."""

    scene: Scene
    feature: str
    """"canny", "scribble" or "segmentation"."""

    def pixels(self, size: int) -> np.ndarray:
        """Return (size, size, 3) uint8."""
        if self.feature == "segmentation":
            return segmentation(self.scene, size)
        return open_feature(self.feature)(pixels_of(self.scene, size))


@dataclass(frozen=True)
class Writing:
    """Black letters on white paper."""

    text: str

    def pixels(self, size: int) -> np.ndarray:
        """Return (size, size, 3) uint8."""
        return pixels_of_png(png_of(_outlines(self.text), size, PAPERS["white"]))[..., :3]


Drawing = Scene | Guide | Writing
"""What a record shows; equal ones are drawn once."""


def pixels_of(drawing: Drawing, size: int) -> np.ndarray:
    """Draw; gives (size, size, 3) uint8."""
    if isinstance(drawing, Scene):
        return pixels_of_png(drawing.png(size))[..., :3]
    return drawing.pixels(size)


def segmentation(scene: Scene, size: int) -> np.ndarray:
    """Return a segmentation map (size, size, 3) uint8: each thing's shape in its class's colour."""
    map_ = np.full((size, size, 3), 255, np.uint8)
    for placed in scene.things:
        digits = PAINTS[CLASSES[placed.thing.category]][1]
        map_[shape_of(placed, size)] = tuple(bytes.fromhex(digits))
    return map_


def shape_of(placed: Placed, size: int) -> np.ndarray:
    """Return which pixels (size, size) a thing covers, holes in it filled."""
    opaque = pixels_of_png(png_of(placed.svg, size))[..., 3] > 127
    return np.asarray(ndimage.binary_fill_holes(opaque))


def _outlines(text: str) -> str:
    """Return the outlines of a line of text in the middle of the square."""
    glyphs, names = bold_font()
    bounds, path, advance = BoundsPen(glyphs), SVGPathPen(glyphs), 0
    for character in text:
        glyph = glyphs[names[ord(character)]]
        for pen in (bounds, path):
            glyph.draw(TransformPen(pen, (1, 0, 0, 1, advance, 0)))
        advance += glyph.width
    x0, y0, x1, y1 = bounds.bounds
    scale = min(WIDE / (x1 - x0), HIGH / (y1 - y0))
    # fonts count upwards, SVG downwards
    x, y = SIDE / 2 - scale * (x0 + x1) / 2, SIDE / 2 + scale * (y0 + y1) / 2
    at = f"translate({x:.3f} {y:.3f}) scale({scale:.5f} {-scale:.5f})"
    return f'<path transform="{at}" fill="#000000" d="{path.getCommands()}"/>'
