"""Which scenes the compositions have, and which split each is in.

Every scene is made of combinations of one split: a picture of training shows nothing held out, and
one for the figures nothing but what is held out for them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from cm3leon.data import scenes
from cm3leon.data.combinations import Combinations, split_combinations
from cm3leon.data.letters import find_letters
from cm3leon.data.names import plural
from cm3leon.data.palette import PAINTS, PAPERS
from cm3leon.data.scenes import Kind, Scene
from cm3leon.data.things import Thing, find_things
from cm3leon.data_recipe import CompositionsRecipe

Plan = Iterator[tuple[Scene, str]]
"""Scenes with their splits."""
Painted = tuple[Thing, str]
"""A thing and its colour."""


def plan(config: CompositionsRecipe) -> list[tuple[Scene, str]]:
    """Return all scenes, each caption once.

    Raises:
        ValueError: The recipe names a colour that there is no paint of.
    """
    things, combinations, rng = held_out(config)
    planned = list(single(things, combinations, "one", config.natural, config.recoloured, rng))
    planned += composed(things, combinations, config, rng)
    if config.letters:
        letters = find_letters()
        combinations = split_combinations(letters, config, 0.0, rng)
        planned += single(letters, combinations, "letter", config.letters, config.letters, rng)
    return planned


def held_out(
    config: CompositionsRecipe,
) -> tuple[Sequence[Thing], Combinations, np.random.Generator]:
    """Return the things, the split of each of them in each colour, and the generator after that.

    Raises:
        ValueError: The recipe names a colour that there is no paint of.
    """
    unknown = sorted(set(config.colours) - set(PAINTS))
    if unknown:
        raise ValueError(f"compositions.colours: wanted some of {list(PAINTS)}, got {unknown}")
    rng = np.random.default_rng(config.seed or 0)
    things: Sequence[Thing] = find_things()
    if config.things is not None:
        things = [things[i] for i in sorted(rng.permutation(len(things))[: config.things])]
    return things, split_combinations(things, config, config.things_share, rng), rng


def single(
    things: Sequence[Thing],
    combinations: Combinations,
    kind: Kind,
    natural: int,
    recoloured: int,
    rng: np.random.Generator,
) -> Plan:
    """Plan pictures of one thing: each in all its colours, each time on other paper.

    Args:
        things: Which.
        combinations: Their splits.
        kind: "one" or "letter".
        natural: Pictures of each in its own colour, the first on white.
        recoloured: Pictures of each in each other colour.
        rng: Draws the papers.
    """
    by_name = {thing.name: thing for thing in things}
    for (name, colour), split in combinations.items():
        thing = by_name[name]
        papers = papers_for([colour], rng)
        if colour == thing.own and "white" in papers:
            papers.remove("white")
            papers.insert(0, "white")
        for paper in papers[: natural if colour == thing.own else recoloured]:
            yield scenes.one(thing, colour, paper, kind), split


def composed(
    things: Sequence[Thing],
    combinations: Combinations,
    config: CompositionsRecipe,
    rng: np.random.Generator,
) -> Plan:
    """Plan the richer kinds: placed, two and count."""
    by_name = {thing.name: thing for thing in things}
    for kind, total in (
        ("placed", config.placed),
        ("two", config.two),
        ("count", config.count),
    ):
        tests, validations = (
            round(share * total) for share in (config.rich_test_share, config.rich_validation_share)
        )
        for split, number in (
            ("train", total - tests - validations),
            ("validation", validations),
            ("test", tests),
        ):
            pool = [
                (by_name[name], colour)
                for (name, colour), part in combinations.items()
                if part == split and (kind != "count" or plural(name))
            ]
            yield from ((scene, split) for scene in _drawn(kind, pool, number, rng))


def _drawn(kind: str, pool: list[Painted], number: int, rng: np.random.Generator) -> list[Scene]:
    """Draw up to `number` scenes with captions of their own from a pool of combinations."""
    found: dict[str, Scene] = {}
    for _ in range(10 * number if pool else 0):
        if len(found) == number:
            break
        scene = _draw(kind, pool, rng)
        if scene:
            found.setdefault(scene.caption, scene)
    return list(found.values())


def _draw(kind: str, pool: list[Painted], rng: np.random.Generator) -> Scene | None:
    (thing, colour), (other, other_colour) = (pool[i] for i in rng.integers(len(pool), size=2))
    if kind == "two":
        if thing.name == other.name or colour == other_colour:
            return None
        paper = papers_for([colour, other_colour], rng)[0]
        relation = str(rng.choice(list(scenes.RELATIONS)))
        return scenes.two((thing, other), (colour, other_colour), paper, relation)
    paper = papers_for([colour], rng)[0]
    if kind == "count":
        return scenes.count(thing, colour, paper, str(rng.choice(list(scenes.NUMBERS))))
    size = str(rng.choice(list(scenes.SIZES), p=[0.45, 0.4, 0.15]))
    return scenes.placed(thing, colour, paper, size, str(rng.choice(list(scenes.PLACES))))


def papers_for(taken: Sequence[str], rng: np.random.Generator) -> list[str]:
    """Return the papers that have none of the colours, in random order."""
    return [paper for paper in rng.permutation(list(PAPERS)).tolist() if paper not in taken]
