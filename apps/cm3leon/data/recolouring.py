"""From the text of one of OpenMoji's SVGs to the same drawing in another colour.

The colour that covers most of a drawing is the thing's own. Only its fills are swapped, the light
one for a light paint and the dark ones for a dark. Outlines stay black.
"""

from __future__ import annotations

import io
import re
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import resvg_py
from PIL import Image

from cm3leon.data.palette import AMBER, FAMILIES, OUTLINE

SIDE = 72
"""Side of OpenMoji's drawings in their own units."""
_MEASURED = 144
"""Side in pixels of the rendering that is measured."""
_COLOUR = re.compile(r"#(?:[0-9a-fA-F]{6}|[0-9a-fA-F]{3})\b")


@dataclass(frozen=True, kw_only=True)
class Coverage:
    """What a drawing is painted with, measured on its rendering."""

    colour: str
    """The thing's own colour, of `FAMILIES`."""
    fills: tuple[str, ...]
    """The fills of that colour, the light one first; one that covers next to nothing is no light
    one."""
    share: float
    """How much of the drawing they cover, outline aside."""
    painted: float
    """How much of the picture the drawing covers, outline aside."""
    box: tuple[float, float, float, float]
    """(x0, y0, x1, y1) of the drawing, outline included, in units of the SVG."""
    corners: bool
    """Whether the drawing covers one of the picture's corners."""


def png_of(inside: str, size: int, paper: str | None = None, *, crisp: bool = False) -> bytes:
    """Draw what stands inside an `svg` element.

    Args:
        inside: In units of a square of `SIDE`.
        size: Side of the picture in pixels.
        paper: Six hexadecimal digits; None leaves it transparent.
        crisp: Leave edges unsmoothed, so that every pixel has the colour of a fill.

    Returns:
        The PNG bytes.
    """
    return resvg_py.svg_to_bytes(
        svg_string=f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {SIDE} {SIDE}">'
        f"{inside}</svg>",
        width=size,
        height=size,
        background=None if paper is None else f"#{paper}",
        shape_rendering="crisp_edges" if crisp else "geometric_precision",
        skip_system_fonts=True,
    )


def pixels_of_png(png: bytes) -> np.ndarray:
    """Return what `png_of` drew, (size, size, 4) uint8 with the opacity last."""
    return np.asarray(Image.open(io.BytesIO(png)).convert("RGBA"))


def coverage(svg: str) -> Coverage:
    """Measure what covers a drawing; `svg` is what stands inside the element."""
    rgba = np.asarray(Image.open(io.BytesIO(png_of(svg, _MEASURED, crisp=True))).convert("RGBA"))
    rgba = rgba.astype(np.int64)
    solid = rgba[..., 3] > 0
    values, counts = np.unique(rgba[solid][:, :3] @ [1 << 16, 1 << 8, 1], return_counts=True)
    area = {f"{value:06x}": int(n) for value, n in zip(values, counts, strict=True)}
    painted = int(solid.sum()) - area.get(OUTLINE, 0)
    covered = {name: sum(area.get(fill, 0) for fill in fills) for name, fills in FAMILIES.items()}
    # light grey shades what is white, but is no white itself
    if area.get("ffffff", 0) > covered["grey"]:
        covered["grey"] = area.get("9b9b9a", 0)
    else:
        covered["white"] = area.get("ffffff", 0)
    family = max(covered, key=covered.__getitem__)
    fills = list(FAMILIES[family])
    light = next(fill for fill in fills if area.get(fill, 0) >= 0.1 * covered[family])
    fills.remove(light)
    fills.insert(0, light)
    rows, columns = (np.flatnonzero(solid.any(axis)) for axis in (1, 0))
    unit = SIDE / _MEASURED
    return Coverage(
        colour="orange" if fills[0] == AMBER else family,
        fills=tuple(fills),
        share=covered[family] / max(painted, 1),
        painted=painted / _MEASURED**2,
        box=(
            float(columns[0] * unit),
            float(rows[0] * unit),
            float((columns[-1] + 1) * unit),
            float((rows[-1] + 1) * unit),
        ),
        corners=bool(solid[[0, 0, -1, -1], [0, -1, 0, -1]].any()),
    )


def recoloured(svg: str, fills: tuple[str, ...], paint: tuple[str, str]) -> str:
    """Return the SVG with the first of the fills in the light paint, the others in the dark."""
    light, dark = paint
    return with_fills(svg, {fill: dark for fill in fills} | {fills[0]: light})


def with_fills(svg: str, swap: Mapping[str, str]) -> str:
    """Return the SVG with colours swapped; both are six hexadecimal digits, in lower case."""

    def other(found: re.Match[str]) -> str:
        digits = found.group()[1:].lower()
        if len(digits) == 3:
            digits = "".join(2 * digit for digit in digits)
        return f"#{swap.get(digits, digits)}"

    return _COLOUR.sub(other, svg)
