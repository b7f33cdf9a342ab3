"""Which things and which combinations of thing and colour are held out.

Every thing but a few is in training, and so is every colour, but some of their combinations never
meet there. The few things that are never seen have pictures to ask for and, in other colours,
pictures to show.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from cm3leon.data.things import Thing
from cm3leon.data_recipe import CompositionsRecipe

Combinations = dict[tuple[str, str], str]
"""(name, colour) -> split."""


def split_combinations(
    things: Sequence[Thing],
    config: CompositionsRecipe,
    things_share: float,
    rng: np.random.Generator,
) -> Combinations:
    """Draw the split of every thing in every colour.

    A thing's own colour is held out only with the thing: the natural look of a known thing is
    always in training.

    Args:
        things: Which.
        config: The colours, and the share of things that choices are made by.
        things_share: Share of the things that training never sees; at least one, unless 0.
        rng: Draws both.
    """
    order = rng.permutation(len(things)).tolist()
    number = max(1, round(things_share * len(things))) if things_share else 0
    unseen, known = set(order[:number]), order[number:]
    validation = set(known[: max(1, round(config.validation_share * len(known)))])
    found: Combinations = {}
    for i, thing in enumerate(things):
        others = [colour for colour in config.colours if colour != thing.own]
        others = [others[place] for place in rng.permutation(len(others))]
        if i in unseen:
            shown = len(others) // 2
            splits = ["shown"] * shown + ["things"] * (len(others) - shown)
            found[thing.name, thing.own] = "shown"
        else:
            splits = ["test"] + ["validation"] * (i in validation)
            splits += ["train"] * (len(others) - len(splits))
            found[thing.name, thing.own] = "train"
        found |= {(thing.name, colour): split for colour, split in zip(others, splits, strict=True)}
    return found
