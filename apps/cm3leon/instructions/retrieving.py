"""Documents that may stand before an instruction: those that its picture finds in the base's bank.

A small model names what it sees by what was retrieved. The paper says nothing of retrieval in
tuning.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from cm3_retrieval import build_neighbour_table
from cm3_retrieval.interface import Encoder
from cm3_train import progress_bar
from cm3leon.parts import Memory

BATCH = 256
"""Pictures that the encoder gets at once."""


@dataclass(frozen=True, kw_only=True)
class Retriever:
    """What finds documents for pictures."""

    encoder: Encoder
    memory: Memory
    groups: Mapping[int, str]
    """Key of a document -> the combinations that it shows, joined by " + "."""
    seed: int

    def near(self, pixels: np.ndarray, groups: Sequence[str]) -> list[tuple[int, ...]]:
        """Return the keys of each picture's documents, the best last.

        Args:
            pixels: (N, H, W, 3) uint8.
            groups: N; a document that shows one of a picture's combinations is left out, so that in
                training a document never shows the answer itself.
        """
        count = len(pixels)
        # keys of their own: none is a document's
        mine = np.setdiff1d(np.arange(count + len(self.memory.bank)), self.memory.bank.keys)[:count]
        group_of = dict(zip(mine.tolist(), groups, strict=True))
        members: dict[str, set[int]] = defaultdict(set)
        for key, group in self.groups.items():
            for part in group.split(" + "):
                members[part].add(key)

        def others(key: int) -> set[int]:
            return set().union(*(members[part] for part in group_of[key].split(" + ")))

        vectors = np.concatenate(
            [
                self.encoder.encode_images(list(pixels[start : start + BATCH]))
                for start in range(0, count, BATCH)
            ]
        )
        with progress_bar("neighbours of instructions", "picture") as progress:
            table = build_neighbour_table(
                self.memory.bank,
                self.encoder,
                mine,
                [None] * count,
                vectors,
                replace(self.memory.strategy, query_dropout=0.0),
                self.seed,
                groups=others,
                progress=progress,
            )
        found = []
        for key in mine.tolist():
            keys = table.candidates(key)["image"]
            found.append(tuple(int(key) for key in keys[::-1] if key != -1))
        return found
