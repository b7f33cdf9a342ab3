"""The colours of the compositions: what things and paper are painted with, and their names."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

FAMILIES: dict[str, tuple[str, ...]] = {
    "red": ("ea5a47", "d22f27", "781e32"),
    "orange": ("f4aa41", "e27022"),
    "yellow": ("fcea2b", "f1b31c"),
    "green": ("b1cc33", "5c9e31", "186648"),
    "blue": ("92d3f5", "61b2e4", "1e50a0"),
    "purple": ("b399c8", "8967aa"),
    "pink": ("ffa7c0", "e67a94"),
    "brown": ("a57939", "6a462f"),
    "white": ("ffffff", "d0cfce"),
    "grey": ("d0cfce", "9b9b9a"),
    "black": ("3f3f3f",),
}
"""OpenMoji's fills by the colour that they are called, the light one first."""
AMBER = "f1b31c"
"""The shade of yellow things; a thing painted with it alone is called orange."""

PAINTS: dict[str, tuple[str, str]] = {
    "red": ("ea4335", "c5221f"),
    "orange": ("ff9a2e", "ee7410"),
    "yellow": ("fcea2b", "ecc81a"),
    "green": ("6cc04a", "3f8f2f"),
    "blue": ("5aa9ee", "2f6fd0"),
    "purple": ("a878d8", "7a46b0"),
    "pink": ("ffa3c4", "f06fa4"),
    "brown": ("a06a35", "6f4423"),
    "grey": ("c4c4c4", "939393"),
}
"""A light and a dark paint of each colour that things are recoloured with."""

PAPERS: dict[str, str] = {
    "white": "ffffff",
    "yellow": "fff07d",
    "orange": "ffbe70",
    "green": "a9e09b",
    "blue": "9dd0ff",
    "purple": "cbabf3",
    "pink": "ffb9d3",
    "grey": "d2d2d2",
}
"""The colour of each background."""

OUTLINE = "000000"

FLAT = 60
"""Most that a pixel of a plain area differs from its four neighbours in a channel, of 255."""
FEW = 10
"""So few plain pixels, or fewer, do not say what colour a thing has."""


def rgb(digits: str) -> tuple[int, int, int]:
    """Return the red, green and blue (0 to 255) of six hexadecimal digits."""
    return int(digits[:2], 16), int(digits[2:4], 16), int(digits[4:], 16)


def colour_of_thing(pixels: np.ndarray, box: Sequence[float], paper: str) -> str:
    """Name the colour that covers most of a box, outline and background aside.

    Each pixel counts for the nearest of all paints and fills. A pixel on an edge mixes what meets
    there (black and white make grey, black and orange brown), so it counts only if there are no
    more than `FEW` others.

    Args:
        pixels: (H, W, 3) uint8.
        box: (x0, y0, x1, y1) in pixels.
        paper: The background, of `PAPERS`.

    Returns:
        One of `FAMILIES`.
    """
    x0, y0, x1, y1 = (round(side) for side in box)
    padded = np.pad(pixels.astype(np.int64), ((1, 1), (1, 1), (0, 0)), mode="edge")
    whole = padded[1:-1, 1:-1]
    around = padded[:-2, 1:-1], padded[2:, 1:-1], padded[1:-1, :-2], padded[1:-1, 2:]
    flat = np.max([abs(one - whole) for one in around], axis=(0, -1))[y0:y1, x0:x1] <= FLAT
    found = whole[y0:y1, x0:x1].reshape(-1, 3)
    # what two colours share is called by the later: light grey is grey, though it shades white
    called = {fill: name for name, fills in (*FAMILIES.items(), *PAINTS.items()) for fill in fills}
    called |= {AMBER: "orange", OUTLINE: "outline", PAPERS[paper]: "paper"}
    shades = np.array([rgb(fill) for fill in called])
    distance = ((found[:, None] - shades) ** 2).sum(-1)  # (pixels, shades)
    names = np.array(list(called.values()))[distance.argmin(1)]
    of_thing = np.isin(names, list(FAMILIES))
    plain = of_thing & flat.ravel()
    counted = names[plain if plain.sum() > FEW else of_thing].tolist()
    return max(FAMILIES, key=counted.count)


def colour_of_paper(pixels: np.ndarray) -> str:
    """Name the background by the picture's four corners.

    Args:
        pixels: (H, W, 3) uint8.

    Returns:
        The nearest of `PAPERS` to the corners' median.
    """
    corners = np.median(pixels[[0, 0, -1, -1], [0, -1, 0, -1]].astype(np.int64), axis=0)
    papers = np.array([rgb(digits) for digits in PAPERS.values()])
    return list(PAPERS)[int(((papers - corners) ** 2).sum(1).argmin())]
