"""The run that is judged: its parts, its pictures, and how much to draw."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cm3leon.data.captions import without_long_captions
from cm3leon.data.memory import Neighbours, open_neighbours
from cm3leon.data.pairs import read_pairs
from cm3leon.data.pixels import Pictures, open_pictures
from cm3leon.data.prepared import open_prepared
from cm3leon.device import device_of
from cm3leon.parts import Parts, parts_of, recipe_of
from cm3leon.recipe import EvaluationRecipe


@dataclass(frozen=True, kw_only=True)
class Subject:
    """A finished run and its data."""

    parts: Parts
    pictures: Pictures
    neighbours: Neighbours
    recipe: EvaluationRecipe
    seed: int
    """Of what is drawn at random to be judged."""

    def context(self, row: int) -> list[int]:
        """Return the keys of the documents that the strategy finds for a pair, the best last."""
        key = int(self.pictures.pairs.keys[row])
        return self.neighbours.for_caption(key, self.recipe.retrieve)

    def one_a_concept(self, *splits: str) -> np.ndarray:
        """Return the first row of each group in the given splits, in a mixed order."""
        pairs = self.pictures.pairs
        rows = pairs.rows(*splits)
        _, first = np.unique(pairs.group_numbers[rows], return_index=True)
        return rows[np.random.default_rng(self.seed).permutation(first)]


def open_subject(folder: Path, device: str = "auto", *, trust: bool = False) -> Subject:
    """Open a finished run with its pictures and neighbours; all as of `parts.open_parts`."""
    where, recipe = device_of(device), recipe_of(folder)
    if recipe.data.prepared is not None:
        prepared = open_prepared(recipe.data.prepared)
        return Subject(
            parts=parts_of(recipe, where, trust=trust),
            pictures=prepared.pictures,
            neighbours=prepared.neighbours,
            recipe=recipe.evaluation,
            seed=recipe.seed,
        )
    source = recipe.data.folder or folder / "data"
    pairs = read_pairs(source, **recipe.data.shares, seed=recipe.seed)
    pictures = open_pictures(source, pairs, folder / "pictures")
    return Subject(
        parts=parts_of(recipe, where, trust=trust),
        pictures=without_long_captions(pictures, folder / "captions")[0],
        neighbours=open_neighbours(folder / "retrieval"),
        recipe=recipe.evaluation,
        seed=recipe.seed,
    )
