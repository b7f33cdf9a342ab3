"""Embedded records that ask for a picture: things at known boxes, writing, and guides."""

from __future__ import annotations

import string
from collections.abc import Iterator, Sequence

from cm3leon.data import scenes
from cm3leon.data.names import with_article
from cm3leon.data.recolouring import SIDE
from cm3leon.data.scenes import Cell, Placed, Scene
from cm3leon.instructions.embedded.pictures import Guide, Writing
from cm3leon.instructions.embedded.planned import Painted, Planned, Pool
from cm3leon.instructions.locations import said_boxes

CHARACTERS = string.ascii_uppercase + string.digits
WORDS = (
    "AIR", "ART", "BAD", "BAG", "BED", "BIG", "BOX", "BUS", "CAB", "CAT", "CUP", "DAY", "DOG",
    "EAR", "EGG", "FAR", "FUN", "GAS", "GO", "HAT", "HI", "HOT", "ICE", "INK", "JAM", "JOB", "KEY",
    "LAB", "LEG", "MAP", "MIX", "NEW", "NO", "OFF", "OIL", "OK", "OLD", "ON", "OUT", "OWL", "PEN",
    "PIE", "QUIZ", "RED", "RUN", "SKY", "SUN", "TAX", "TEA", "TOP", "TOY", "UP", "VAN", "WAX",
    "WIN", "YES", "ZIP", "ZOO",
)  # fmt: skip
SIDES = {1: (27, 46), 2: (27, 46), 3: (22, 34)}
"""Least and most of the sides of a cell, in units of a square of 72, by the number of cells."""
GUIDES = ("canny", "scribble", "segmentation")


def grounded(pool: Pool, number: int, grid: int) -> Iterator[Planned]:
    """Plan scenes of one to three things at drawn boxes that do not overlap.

    Args:
        pool: What may be shown.
        number: How many.
        grid: What the said places are multiples of.
    """
    while number:
        cells = _cells(pool, pool.choice((1, 2, 2, 2, 3)))
        things = pool.several(len(cells))
        placed = [
            scenes.fitted(thing, colour, cell)
            for (thing, colour), cell in zip(things, cells, strict=True)
        ]
        papers = pool.papers(*(colour for _, colour in things))
        if not papers:
            continue
        number -= 1
        scene = Scene(kind="two", things=tuple(placed), paper=papers[0], words=_joined(things))
        boxes = [(scenes.said(one.thing, one.colour), _box(one)) for one in placed]
        yield Planned(
            task="boxes",
            split=pool.split,
            texts={"caption": scene.caption, "boxes": said_boxes(boxes, SIDE, grid=grid)},
            pictures={"image": scene},
            facts=scene.facts(SIDE),
        )


def writing(pool: Pool, number: int) -> Iterator[Planned]:
    """Plan writing: half of it one character, a quarter two that are drawn, a quarter words.

    A tenth of the words, and of the pairs of characters, is never in training.
    """
    words = [
        word for place, word in enumerate(WORDS) if (place % 10 == 3) != (pool.split == "train")
    ]
    while number:
        kind = pool.choice(("one", "one", "two", "word"))
        if kind == "one":
            text = pool.choice(CHARACTERS)
        elif kind == "word":
            text = pool.choice(words)
        else:
            first, second = (int(place) for place in pool.rng.integers(len(CHARACTERS), size=2))
            if ((first + second) % 10 == 3) == (pool.split == "train"):
                continue
            text = CHARACTERS[first] + CHARACTERS[second]
        number -= 1
        yield Planned(
            task="write",
            split=pool.split,
            texts={"text": text},
            pictures={"image": Writing(text)},
            facts={"text": text},
        )


def guided(pool: Pool, number: int, feature: str) -> Iterator[Planned]:
    """Plan pictures that a guide of theirs asks for."""
    for _ in range(number):
        thing, colour = pool.one()
        paper = pool.papers(colour)[0]
        if pool.rng.random() < 0.6:
            scene = scenes.one(thing, colour, paper)
        else:
            size, place = pool.choice(list(scenes.SIZES)), pool.choice(list(scenes.PLACES))
            scene = scenes.placed(thing, colour, paper, size, place)
        yield Planned(
            task=feature,
            split=pool.split,
            texts={"caption": scene.caption},
            pictures={"feature": Guide(scene, feature), "image": scene},
            facts=scene.facts(SIDE),
        )


def _joined(things: Sequence[Painted]) -> str:
    said = [with_article(thing.name, scenes.said(thing, colour)) for thing, colour in things]
    return said[0] if len(said) == 1 else f"{', '.join(said[:-1])} and {said[-1]}"


def _cells(pool: Pool, number: int) -> list[Cell]:
    """Draw cells that do not overlap."""
    found: list[Cell] = []
    while len(found) < number:
        found = []
        for _ in range(40):
            width, height = pool.rng.uniform(*SIDES[number], 2)
            left, top = (
                pool.rng.uniform(1, SIDE - 1 - width),
                pool.rng.uniform(1, SIDE - 1 - height),
            )
            cell = (float(left), float(top), float(width), float(height))
            if all(_apart(cell, other) for other in found):
                found.append(cell)
            if len(found) == number:
                break
    return found


def _apart(one: Cell, other: Cell) -> bool:
    return (
        one[0] + one[2] < other[0]
        or other[0] + other[2] < one[0]
        or one[1] + one[3] < other[1]
        or other[1] + other[3] < one[1]
    )


def _box(placed: Placed) -> tuple[float, float, float, float]:
    x0, y0, x1, y1 = placed.thing.box
    x, y, scale = placed.x, placed.y, placed.scale
    return x + scale * x0, y + scale * y0, x + scale * x1, y + scale * y1
