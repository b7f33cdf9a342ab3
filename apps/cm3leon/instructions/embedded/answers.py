"""Embedded records that ask for words: captions, questions, and choices with a reason."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from cm3leon.data import scenes
from cm3leon.data.names import plural, with_article
from cm3leon.data.recolouring import SIDE
from cm3leon.data.scenes import Placed, Scene
from cm3leon.instructions.embedded.planned import TRIES, Planned, Pool

OPTIONS = 3
YES_NO = ("no", "yes")


def short_captions(pool: Pool, number: int) -> Iterator[Planned]:
    """Plan captions as the pretraining pairs have them."""
    for _ in range(number):
        scene = _any(pool)
        yield _answer(pool, "coco_caption", scene, {"caption": scene.caption})


def long_captions(pool: Pool, number: int) -> Iterator[Planned]:
    """Plan captions that say all that there is."""
    for _ in range(number):
        scene = _any(pool)
        yield _answer(pool, "image_paragraph", scene, {"caption": at_length(scene)})


def at_length(scene: Scene) -> str:
    """Describe a scene in sentences."""
    first = scene.things[0]
    many = len(scene.things)
    if scene.kind == "count":
        number = next(word for word, cells in scenes.NUMBERS.items() if len(cells) == many)
        said = f"There are {number} {plural(first.thing.name)}. They are {first.colour}."
    elif scene.kind == "two":
        one, other = map(_said, scene.things)
        said = f"There are two things: {one} is {_relation(scene)} {other}."
    else:
        said = f"There is {with_article(first.thing.name, first.thing.name)}."
        said += f" Its colour is {first.colour}."
        if scene.kind == "placed":
            size, place = _size_and_place(scene)
            said += f" It is {size or 'of middle size'}" + (f" and {place}." if place else ".")
    return f"{said} The background is {scene.paper}."


def questions(pool: Pool, number: int) -> Iterator[Planned]:
    """Plan questions: in training as often of each kind as `SHARES` says, else equally often."""
    kinds = list(ASKED)
    shares = np.array([SHARES[kind] for kind in kinds])
    for place in range(number):
        if pool.split == "train":
            kind = kinds[int(pool.rng.choice(len(kinds), p=shares / shares.sum()))]
        else:
            kind = kinds[place % len(kinds)]
        scene, question, answer = ASKED[kind](pool)
        facts = {"question": kind}
        yield _answer(pool, "vqa2", scene, {"question": question, "answer": answer}, facts)


def choices(pool: Pool, number: int) -> Iterator[Planned]:
    """Plan choices: which thing, or which colour, of three, and why."""
    for _ in range(number):
        thing, colour = pool.one()
        scene = scenes.one(thing, colour, pool.papers(colour)[0])
        if pool.rng.random() < 0.5:
            question, right = "Which thing is this?", thing.name
            others = [pool.choice(pool.known)[0].name for _ in range(4 * OPTIONS)]
            why = f"The picture shows {with_article(thing.name, thing.name)}."
        else:
            question, right = "Which colour is it?", colour
            others = [pool.choice(pool.known)[1] for _ in range(8 * OPTIONS)]
            why = f"The {thing.name} is {colour}."
        wrong = [name for name in dict.fromkeys(others) if name != right][: OPTIONS - 1]
        options = [*wrong, right]
        options = [options[place] for place in pool.rng.permutation(len(options))]
        letters = [f"({chr(ord('A') + place)})" for place in range(len(options))]
        answer = letters[options.index(right)]
        said = " ".join(f"{letter} {name}" for letter, name in zip(letters, options, strict=True))
        texts = {
            "question": question,
            "context": "N/A",
            "options": said,
            "explanation": why,
            "answer": answer,
        }
        yield _answer(pool, "science_qa", scene, texts, {"answer": answer, "reason": why})


def _answer(
    pool: Pool, task: str, scene: Scene, texts: dict[str, str], facts: dict[str, Any] | None = None
) -> Planned:
    return Planned(
        task=task,
        split=pool.split,
        texts=texts,
        pictures={"image": scene},
        facts={**scene.facts(SIDE), **(facts or {})},
    )


def _one(pool: Pool) -> Scene:
    thing, colour = pool.one()
    return scenes.one(thing, colour, pool.papers(colour)[0])


def _placed(pool: Pool) -> Scene:
    thing, colour = pool.one()
    size, place = pool.choice(list(scenes.SIZES)), pool.choice(list(scenes.PLACES))
    return scenes.placed(thing, colour, pool.papers(colour)[0], size, place)


def _two(pool: Pool) -> Scene:
    while True:
        (one, first), (other, second) = pool.several(2)
        if papers := pool.papers(first, second):
            relation = pool.choice(list(scenes.RELATIONS))
            return scenes.two((one, other), (first, second), papers[0], relation)


def _count(pool: Pool) -> Scene:
    for _ in range(TRIES):
        thing, colour = pool.one()
        if plural(thing.name) is not None:
            number = pool.choice(list(scenes.NUMBERS))
            return scenes.count(thing, colour, pool.papers(colour)[0], number)
    raise pool.lacks("a thing that can be counted")


def _any(pool: Pool) -> Scene:
    return pool.choice((_one, _placed, _two, _count))(pool)


def _what(pool: Pool) -> tuple[Scene, str, str]:
    scene = _one(pool)
    return scene, pool.choice(("what is it?", "what is this?")), scene.things[0].thing.name


def _colour(pool: Pool) -> tuple[Scene, str, str]:
    scene = pool.choice((_one, _placed))(pool)
    first = scene.things[0]
    asked = ("what colour is it?", f"what colour is the {first.thing.name}?")
    return scene, pool.choice(asked), first.colour


def _behind(pool: Pool) -> tuple[Scene, str, str]:
    scene = pool.choice((_one, _placed))(pool)
    return scene, pool.choice(("what is behind it?", "what colour is the background?")), scene.paper


def _how_many(pool: Pool) -> tuple[Scene, str, str]:
    scene = pool.choice((_one, _count, _count, _count))(pool)
    words = {len(cells): word for word, cells in scenes.NUMBERS.items()}
    return scene, "how many are there?", words.get(len(scene.things), "one")


def _beside(pool: Pool) -> tuple[Scene, str, str]:
    scene = _two(pool)
    first, second = (placed.thing.name for placed in scene.things)
    return scene, f"what is {_relation(scene)} the {second}?", first


def _is_it_thing(pool: Pool) -> tuple[Scene, str, str]:
    scene = _one(pool)
    first, yes = scene.things[0], int(pool.rng.integers(2))
    other = pool.other_thing(first.thing, first.colour) or first.thing
    asked = first.thing if yes else other
    name = with_article(asked.name, asked.name)
    seen = with_article(first.thing.name, first.thing.name)
    return scene, f"is it {name}?", _so(seen, asked.name == first.thing.name)


def _is_it_colour(pool: Pool) -> tuple[Scene, str, str]:
    scene = pool.choice((_one, _placed))(pool)
    first, yes = scene.things[0], int(pool.rng.integers(2))
    other = pool.choice(pool.known)[1]
    asked = first.colour if yes else other
    return scene, f"is it {asked}?", _so(first.colour, asked == first.colour)


def _so(seen: str, yes: bool) -> str:
    """Return yes or no after what is seen: alone, a small model's one word stays a guess."""
    return f"it is {seen}, so {YES_NO[int(yes)]}"


ASKED: dict[str, Callable[[Pool], tuple[Scene, str, str]]] = {
    "thing": _what,
    "colour": _colour,
    "background": _behind,
    "number": _how_many,
    "beside": _beside,
    "is_thing": _is_it_thing,
    "is_colour": _is_it_colour,
}
"""A scene, a question and its answer, by kind of question."""
SHARES = {
    "thing": 3, "colour": 2, "background": 1, "number": 1, "beside": 1,
    "is_thing": 3, "is_colour": 2,
}  # fmt: skip
"""Parts of the questions in training."""


def _said(placed: Placed) -> str:
    return with_article(placed.thing.name, scenes.said(placed.thing, placed.colour))


def _relation(scene: Scene) -> str:
    return next(word for word in scenes.RELATIONS if f" {word} " in scene.words)


def _size_and_place(scene: Scene) -> tuple[str, str]:
    size = next((word for word in scenes.SIZES if word and scene.words.startswith(f"{word} ")), "")
    place = next((word for word in scenes.PLACES if scene.words.endswith(f" {word}")), "")
    return size, place
