"""From a record to a training sequence of instruction tuning (arXiv 2309.02591, section 4).

Instruction and output are one document under the CM3 objective. Which parts are cut out is drawn so
that training shows what is asked for later:

    Question: ... <mask>. <break> picture <infill> output      the output cut out: an answer
    Edit ... <break> picture <break> <mask> <break> output     no text: a stream of guidance
    Edit ... <break> <mask> <break> <mask:1> <break> output    neither text nor picture: another

Else CM3's spans are drawn over the instruction; retrieved documents before it stay whole.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np

from cm3_train.cm3 import cm3_transform, move_spans
from cm3_train.collate import Sample
from cm3_train.config import InstructionConfig
from cm3_train.integers import integer, integers

Span = tuple[int, int]
"""Places [start, stop) of a document."""


class Instruction(Protocol):
    """A document and where its parts lie, such as cm3_texttok's `Instruction`."""

    @property
    def ids(self) -> np.ndarray:
        """(L,) from `<eos>` to `<eos>`."""
        ...

    @property
    def output(self) -> Span:
        """What is asked for."""
        ...

    @property
    def text_inputs(self) -> Sequence[Span]:
        """The texts that are given."""
        ...

    @property
    def picture_inputs(self) -> Sequence[Span]:
        """The pictures that are given."""
        ...

    @property
    def start(self) -> int:
        """Where the instruction begins, behind retrieved documents; nothing before is cut out."""
        ...


class InstructionBuilder:
    """Callable `(key, epoch) -> Sample`, a function of its arguments and the seed alone.

    Args:
        lay_out: `(key, epoch, generator) -> Instruction`; the generator draws the template.
        config: What is cut out; None leaves documents whole but for an output that something
            follows, which is always cut out, and scores the output alone: as validation wants it.
        eos_id: See `cm3_transform`; so the next three.
        break_id: The sign between modalities.
        infill_id: The sign before moved spans.
        mask_ids: The signs that stand in for spans.
        max_length: Most ids of a sequence.
        seed: Of the run.
    """

    def __init__(
        self,
        lay_out: Callable[[int, int, np.random.Generator], Instruction],
        config: InstructionConfig | None,
        *,
        eos_id: int,
        break_id: int,
        infill_id: int,
        mask_ids: Sequence[int],
        max_length: int,
        seed: int,
    ) -> None:
        """Keep the arguments; nothing is drawn yet."""
        self.lay_out = lay_out
        self.config = config
        self.eos_id = eos_id
        self.break_id = break_id
        self.infill_id = infill_id
        self.mask_ids = tuple(mask_ids)
        self.max_length = max_length
        self.seed = seed

    def __call__(self, key: int, epoch: int) -> Sample:
        """Return the sequence of `key` in `epoch`, int64 ids (L,), L <= max_length.

        Raises:
            ValueError: The instruction is longer than `max_length`, or the key is no integer.
        """
        one, spans, rng = self._drawn(key, epoch)
        ids = integers(one.ids, f"key {key}: ids")
        if spans:
            begins, stops = np.array(spans).T
            moved = move_spans(ids, begins, stops, self.infill_id, self.mask_ids)
            return Sample(moved, 1, self._weights(one, len(moved), spans))
        if self.config is None or self.config.score == "output":
            return Sample(ids, 1, self._weights(one, len(ids), []))
        room = (self.max_length - len(ids)) // 2
        moved = cm3_transform(
            ids,
            config=self.config.cm3,
            rng=rng,
            eos_id=self.eos_id,
            break_id=self.break_id,
            infill_id=self.infill_id,
            mask_ids=self.mask_ids[:room],
            scope_start=one.start,
        )
        return Sample(moved)

    def cut(self, key: int, epoch: int) -> tuple[Instruction, list[Span]]:
        """Return the instruction of `key` in `epoch`, and which whole fields are cut out of it."""
        one, spans, _ = self._drawn(key, epoch)
        return one, spans

    def _drawn(self, key: int, epoch: int) -> tuple[Instruction, list[Span], np.random.Generator]:
        key = integer(key, "key")
        rng = np.random.default_rng((self.seed, epoch, key & 0xFFFF_FFFF_FFFF_FFFF))
        one = self.lay_out(key, epoch, rng)
        length = len(one.ids)
        if length > self.max_length:
            raise ValueError(
                f"key {key}: wanted at most max_length = {self.max_length} ids, got {length}"
            )
        spans = self._cut(one, rng)
        if length + 2 * len(spans) > self.max_length or len(spans) > len(self.mask_ids):
            spans = []
        return one, spans, rng

    def _cut(self, one: Instruction, rng: np.random.Generator) -> list[Span]:
        """Draw the spans to cut out, in order, none touching another."""
        config = self.config
        last = one.output[1] == len(one.ids) - 1
        if not last:
            cut = config is None or rng.random() < config.cut_output
            return [one.output] if cut else []
        if config is None:
            return []
        kind = rng.random()
        chosen: list[Span] = []
        for chance, spans in (
            (config.drop_text, one.text_inputs),
            (config.drop_pictures, one.picture_inputs),
            (config.drop_both, (*one.text_inputs, *one.picture_inputs)),
        ):
            if 0 <= kind < chance:
                chosen = sorted(spans)
            kind -= chance
        joined: list[Span] = []
        for start, stop in chosen:
            if joined and joined[-1][1] == start:
                start = joined.pop()[0]
            if stop > start:
                joined.append((start, stop))
        return joined

    def _weights(self, one: Instruction, length: int, spans: list[Span]) -> np.ndarray | None:
        """Return what each of `length` ids counts once `spans` were moved; None: all alike."""
        config = self.config
        start, stop = one.output
        last = stop == len(one.ids) - 1
        weight = 1.0 if config is None or last else config.text_weight
        whole = config is not None and config.score == "all"
        if whole and weight == 1:
            return None
        weights = np.full(length, float(whole), np.float32)
        if spans == [one.output]:  # behind <infill>, and the <eos> that ends it
            weights[length - 1 - (stop - start) :] = weight
            return weights
        gone = sum(end - begin - 1 for begin, end in spans)  # a mask stays of each
        weights[start - gone : stop - gone] = weight
        if not spans and last:
            weights[-1] = 1
        return weights
