"""Embedded edits: another colour, another background, another thing, and no change at all."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

from cm3leon.data import scenes
from cm3leon.data.names import with_article
from cm3leon.data.scenes import Scene
from cm3leon.data.things import Thing
from cm3leon.instructions.embedded.planned import TRIES, Planned, Pool

Change = Literal["colour", "background", "thing", "keep"]
SHARES: dict[Change, float] = {"colour": 0.4, "background": 0.25, "thing": 0.2, "keep": 0.15}
WORDS: dict[Change, tuple[str, ...]] = {
    "colour": ("make it {}", "make the {thing} {}", "paint it {}", "change its colour to {}"),
    "background": ("put it on {}", "make the background {}", "put the {thing} on {}"),
    "thing": ("turn the {thing} into {}", "replace the {thing} by {}", "make it {}"),
    "keep": ("keep it as it is", "change nothing", "leave the {thing} as it is"),
}


def edits(pool: Pool, number: int, *, only: Change | None = None) -> Iterator[Planned]:
    """Plan edits; what comes out shows a combination of the pool's split.

    Args:
        pool: What may be shown.
        number: How many.
        only: One kind of change; None mixes them by `SHARES`.

    Raises:
        ValueError: The pool has nothing to change from.
    """
    kinds, tries = list(SHARES), TRIES
    while number:
        kind = only or kinds[int(pool.rng.choice(len(kinds), p=list(SHARES.values())))]
        found = _edit(pool, kind)
        if found is not None:
            number, tries = number - 1, TRIES
            yield found
        elif (tries := tries - 1) == 0:
            raise pool.lacks(f"an edit of the {kind}")


def _edit(pool: Pool, kind: Change) -> Planned | None:
    """Plan one edit, None if what was drawn has nothing to be changed from."""
    thing, colour = pool.one()
    old_thing, old_colour, (paper, old_paper) = thing, colour, pool.papers(colour)[:2]
    said = ""
    if kind == "background":
        said = paper
    else:
        old_paper = paper
    if kind == "colour":
        old = pool.other_colour(thing, colour)
        if old is None:
            return None
        old_colour, said = old, colour
        paper = old_paper = pool.papers(colour, old)[0]
    if kind == "thing":
        other = pool.other_thing(thing, colour)
        if other is None:
            return None
        old_thing, said = other, with_article(thing.name, thing.name)
    size, place = _where(pool)
    return Planned(
        task="edit",
        split=pool.split,
        texts={"instruction": pool.choice(WORDS[kind]).format(said, thing=old_thing.name)},
        pictures={
            "source": _scene(old_thing, old_colour, old_paper, size, place),
            "image": _scene(thing, colour, paper, size, place),
        },
        facts={
            "change": kind,
            "thing": thing.name,
            "colour": colour,
            "background": paper,
            "before": {"thing": old_thing.name, "colour": old_colour, "background": old_paper},
        },
    )


def _where(pool: Pool) -> tuple[str | None, str]:
    """Draw a size and a place; None fills the picture."""
    if pool.rng.random() < 0.6:
        return None, ""
    return pool.choice(list(scenes.SIZES)), pool.choice(list(scenes.PLACES))


def _scene(thing: Thing, colour: str, paper: str, size: str | None, place: str) -> Scene:
    if size is None:
        return scenes.one(thing, colour, paper)
    return scenes.placed(thing, colour, paper, size, place)
