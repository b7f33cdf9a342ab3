"""The run that is judged: its parts, its pictures, and how much to draw."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from cm3leon.data.memory import Neighbours
from cm3leon.data.pixels import Pictures
from cm3leon.parts import Parts
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
