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
        members: dict[str, set[int]] = defaultdict(set)
        for key, group in self.groups.items():
            for part in group.split(" + "):
                members[part].add(key)

        def others(key: int) -> set[int]:
            parts = groups[-1 - key].split(" + ")
            return set().union(*(members[part] for part in parts))

        vectors = np.concatenate(
            [
                self.encoder.encode_images(list(pixels[start : start + BATCH]))
                for start in range(0, len(pixels), BATCH)
            ]
        )
        with progress_bar("neighbours of instructions", "picture") as progress:
            table = build_neighbour_table(
                self.memory.bank,
                self.encoder,
                -1 - np.arange(len(pixels)),
                [None] * len(pixels),
                vectors,
                replace(self.memory.strategy, query_dropout=0.0),
                self.seed,
                groups=others,
                progress=progress,
            )
        found = []
        for place in range(len(pixels)):
            keys = table.candidates(-1 - place)["image"]
            found.append(tuple(int(key) for key in keys[::-1] if key != -1))
        return found
