"""The embedded set: things in their own and in other colours on coloured paper.

The folder is an ordinary Hugging Face imagefolder: PNG files and `metadata.jsonl` with `file_name`,
`text`, `split`, `group`, `category` and `boxes`. Its column `facts` says what a picture shows:

    {"kind": "one", "background": "yellow",
     "things": [{"name": "fox", "colour": "blue", "natural": false, "box": [x0, y0, x1, y1]}]}

`group` is the combination of thing and colour, "fox blue", whatever the paper. Pictures: OpenMoji,
CC BY-SA 4.0, https://openmoji.org.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from cm3leon.data import scenes
from cm3leon.data.combinations import Combinations, split_combinations
from cm3leon.data.openmoji import CREDIT
from cm3leon.data.palette import PAPERS
from cm3leon.data.scenes import Scene
from cm3leon.data.things import Thing, find_things
from cm3leon.recipe import CompositionsRecipe


def write_compositions(
    folder: Path,
    config: CompositionsRecipe,
    size: int,
    progress: Callable[[int, int], None] | None = None,
) -> None:
    """Write the folder: `pictures/*.png`, `metadata.jsonl` and `CREDIT.txt`.

    Args:
        folder: Where to; made if missing.
        config: How many of each kind, and what is held out.
        size: Side of the pictures in pixels.
        progress: Called with (done, total).
    """
    rng = np.random.default_rng(config.seed or 0)
    things = find_things()
    if config.things is not None:
        things = [things[i] for i in sorted(rng.permutation(len(things))[: config.things])]
    combinations = split_combinations(things, config, rng)
    planned = list(single(things, combinations, config, rng))

    (folder / "pictures").mkdir(parents=True, exist_ok=True)
    rows = []
    with ThreadPoolExecutor() as pool:
        pictures = pool.map(lambda item: item[0].png(size), planned)
        for i, ((scene, split), png) in enumerate(zip(planned, pictures, strict=True)):
            facts = scene.facts(size)
            row = {
                "file_name": f"pictures/{i:05d}-{_file_name(scene)}.png",
                "text": scene.caption,
                "split": split,
                "group": scene.group,
                "category": scene.things[0].thing.category,
                "boxes": [thing["box"] for thing in facts["things"]],
                "facts": facts,
            }
            (folder / row["file_name"]).write_bytes(png)
            rows.append(json.dumps(row, ensure_ascii=False) + "\n")
            if progress:
                progress(i + 1, len(planned))
    (folder / "metadata.jsonl").write_text("".join(rows), encoding="utf-8")
    (folder / "CREDIT.txt").write_text(CREDIT + "\n", encoding="utf-8")


def single(
    things: Sequence[Thing],
    combinations: Combinations,
    config: CompositionsRecipe,
    rng: np.random.Generator,
) -> Iterator[tuple[Scene, str]]:
    """Plan the pictures of one thing, each thing in all its colours, on papers in turn.

    A thing in its own colour has `natural` pictures, the first on white; one in another colour has
    `recoloured`.
    """
    for thing in things:
        papers = _in_turn(list(PAPERS), rng)
        colours = [thing.own, *(colour for colour in config.colours if colour != thing.own)]
        for colour in colours:
            natural = colour == thing.own
            for number in range(config.natural if natural else config.recoloured):
                plain = natural and number == 0 and colour != "white"
                paper = "white" if plain else next(p for p in papers if p != colour)
                yield scenes.one(thing, colour, paper), combinations[thing.name, colour]


def _in_turn(names: list[str], rng: np.random.Generator) -> Iterator[str]:
    """Deal the names without end, in a new order each round."""
    while True:
        yield from (names[i] for i in rng.permutation(len(names)))


def _file_name(scene: Scene) -> str:
    return "".join(c if c.isalnum() and c.isascii() else "-" for c in scene.caption.lower())
