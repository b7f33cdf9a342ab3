"""From a key to a training sequence: retrieved pairs, the query pair, CM3 (paper 2.1 and 2.2).

Takes token shards, a layout and a retrieval callable; gives samples. All randomness of one sequence
comes from one generator seeded by (seed, epoch, key), so it depends on no worker and no rank.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np

from cm3_train.cm3 import CM3Config, cm3_transform, query_start
from cm3_train.collate import Sample
from cm3_train.integers import integer

Pair = tuple[np.ndarray, np.ndarray]
"""Text ids and codes of one document."""


class PairSource(Protocol):
    """What the builder reads: text ids and codes by key; `TokenShards` is one."""

    def num_views(self, key: int) -> int:
        """Return how many encodings of the picture there are."""
        ...

    def text_ids(self, key: int, view: int = 0) -> np.ndarray:
        """Return the caption's ids, (T,)."""
        ...

    def codes(self, key: int, view: int = 0) -> np.ndarray:
        """Return the picture's codes, row-major (n,)."""
        ...


class SequenceBuilder:
    """Callable `(key, epoch) -> Sample`, a function of its arguments and the seed alone.

    Args:
        shards: Text ids and codes by key.
        layout: Lays pairs out as `<eos> T <break> I <break> ... T <break> I <eos>`, the query last.
        retrieve: `(key, epoch) -> keys` of the retrieved documents, the best last; None: none.
        cm3: The objective; None leaves documents plain, as validation wants them.
        eos_id: See `cm3_transform`; so the next three.
        break_id: The sign between modalities.
        infill_id: The sign before moved spans.
        mask_ids: The signs that stand in for spans.
        max_length: Most ids of a sequence. Retrieved pairs that do not fit are dropped, the first
            (the least useful) first; the query's spans are never squeezed by a retrieved pair.
        seed: Of the run.
        grid: (height, width) of a picture in codes.
        plain_share: Chance of view 0, where a picture has several; None: all views alike. A
            sequence has one view: retrieved pairs show the query's, or view 0 where they lack it.
        query_only: Score the query pair alone, as validation wants it: retrieved training pictures
            would flatter the figure. Otherwise every token counts (paper 2.2).
    """

    def __init__(
        self,
        shards: PairSource,
        layout: Callable[[Sequence[Pair]], np.ndarray],
        retrieve: Callable[[int, int], Sequence[int]] | None,
        cm3: CM3Config | None,
        *,
        eos_id: int,
        break_id: int,
        infill_id: int,
        mask_ids: Sequence[int],
        max_length: int,
        seed: int,
        grid: tuple[int, int] | None = None,
        plain_share: float | None = None,
        query_only: bool = False,
    ) -> None:
        """Keep the arguments; nothing is drawn yet."""
        if plain_share is not None and not 0 <= plain_share <= 1:
            raise ValueError(f"plain_share: wanted 0..1 or None, got {plain_share}")
        self.plain_share = plain_share
        self.shards = shards
        self.layout = layout
        self.retrieve = retrieve
        self.cm3 = cm3
        self.eos_id = eos_id
        self.break_id = break_id
        self.infill_id = infill_id
        self.mask_ids = tuple(mask_ids)
        self.max_length = max_length
        self.seed = seed
        self.grid = grid
        self.query_only = query_only

    def __call__(self, key: int, epoch: int) -> Sample:
        """Return the sequence of `key` in `epoch`, int64 ids (L,), L <= max_length.

        Raises:
            ValueError: The query pair alone is longer than `max_length`, or a key is no integer.
        """
        key = integer(key, "key")
        rng = np.random.default_rng((self.seed, epoch, key & 0xFFFF_FFFF_FFFF_FFFF))
        view = self._view(key, rng)
        retrieved = [] if self.retrieve is None else self.retrieve(key, epoch)
        others = [integer(other, f"key {key}: retrieved key") for other in retrieved]
        context = [self._pair(other, view) for other in others]
        ids = self._lay_out(context, self._pair(key, view), key)
        start = query_start(ids, self.break_id)
        scored_from = start if self.query_only else 1
        if self.cm3 is None:
            return Sample(ids, scored_from)
        room = (self.max_length - len(ids)) // 2  # a span costs two ids: its mask, <infill> or mask
        moved = cm3_transform(
            ids,
            config=self.cm3,
            rng=rng,
            eos_id=self.eos_id,
            break_id=self.break_id,
            infill_id=self.infill_id,
            mask_ids=self.mask_ids[:room],
            scope_start=start,
            grid=self.grid,
        )
        return Sample(moved, scored_from, self._weights(moved, start))

    def _weights(self, ids: np.ndarray, query: int) -> np.ndarray | None:
        """Return what each id counts, None if all count alike; the query begins at `query`."""
        cm3 = self.cm3
        if cm3 is None or (cm3.score_masks and (cm3.retrieved_weight == 1 or query == 1)):
            return None
        weights = np.ones(len(ids), np.float32)
        weights[:query] = cm3.retrieved_weight
        if not cm3.score_masks:  # in the body; behind <infill> they say that a span is over
            end = np.flatnonzero(ids == self.infill_id)
            if len(end):
                weights[: end[0]][np.isin(ids[: end[0]], self.mask_ids)] = 0
        return weights

    def _view(self, key: int, rng: np.random.Generator) -> int:
        count, share = self.shards.num_views(key), self.plain_share
        if count == 1 or share is None:
            return int(rng.integers(count))
        return 0 if rng.random() < share else int(rng.integers(1, count))

    def _pair(self, key: int, view: int) -> Pair:
        if view >= self.shards.num_views(key):
            view = 0
        return self.shards.text_ids(key, view), self.shards.codes(key, view)

    def _lay_out(self, context: list[Pair], query: Pair, key: int) -> np.ndarray:
        limit = self.max_length - (2 * len(self.mask_ids) if self.cm3 else 0)
        while context:
            ids = self.layout([*context, query])
            if len(ids) <= limit:
                return ids
            context = context[1:]
        ids = self.layout([query])
        if len(ids) > self.max_length:
            raise ValueError(
                f"key {key}: wanted at most max_length = {self.max_length} ids, "
                f"got {len(ids)} for the pair alone"
            )
        return ids
