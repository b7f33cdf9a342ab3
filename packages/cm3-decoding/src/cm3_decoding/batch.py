"""Rows that a model continues together, each by settings of its own; rows come and go.

A `Batch` reads the prompts of its rows and draws an id for each, then one more in every step. Rows
that are finished leave, and `join` takes in another batch's rows where its own have left room: so a
service draws for those who wait as soon as it can, and texts of unequal lengths fill each other's
place. `generate` and `generate_rows` are loops over it.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import numpy as np
import torch
from torch import Tensor

from cm3_decoding.config import SamplingConfig, Stream
from cm3_decoding.constraints import Constraint, max_new_tokens
from cm3_decoding.finite import FiniteCheck
from cm3_decoding.interface import DecodesSpans, LanguageModel
from cm3_decoding.noise import Noise, cat_rows, check_seeds
from cm3_decoding.sampling import acts, combine, draw
from cm3_decoding.segments import ConstraintSegment
from cm3_decoding.streams import Reading, lay_out, run

ASKED_EVERY = 8
"""Steps after which an accelerator is asked which rows have stopped: asking makes it wait."""


Name = TypeVar("Name", bound=Hashable)
"""What a caller tells rows apart by."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """What is to be continued, and how."""

    prompts: Mapping[Stream, Tensor]
    """A prompt (length,) for each of `config.streams`; others are ignored."""
    segments: Sequence[ConstraintSegment]
    """What the new ids are."""
    config: SamplingConfig = SamplingConfig()
    """How they are chosen."""
    seed: int = 0
    """Decides the random numbers: a whole number from -2^63 to 2^64 - 1."""


@dataclass(frozen=True)
class _Group:
    """Rows that are drawn by the same settings in a step."""

    config: SamplingConfig
    step: int
    rows: Tensor | slice
    places: dict[Stream, Tensor | slice]


_OF_THE_DEVICE = ("_lengths", "_steps", "_going", "_was_going")
"""What a batch keeps of each row beside its ids, in tensors."""
_OF_THE_HOST = ("_limits", "_used", "_counts", "_guided", "_done", "_collected")
"""The same in arrays, which are known without waiting for the device."""


class Batch(Generic[Name]):
    """Rows in the making, by names that the caller gives them."""

    @torch.inference_mode()
    def __init__(
        self,
        model: LanguageModel,
        rows: Mapping[Name, Row],
        device: torch.device | str = "cpu",
    ) -> None:
        """Read the prompts of at least one row and draw the first id of each.

        Args:
            model: In eval mode, on `device`.
            rows: By names of any kind.
            device: The model's device.

        Raises:
            ValueError: A row lacks a prompt or has no place in the model's context.
            FloatingPointError: What ids are chosen by is not finite.
        """
        self._model, self._device = model, torch.device(device)
        self._spans = model if isinstance(model, DecodesSpans) else None
        self._names, given = list(rows), list(rows.values())
        self._configs = [row.config for row in given]
        self._limits = np.array([max_new_tokens(row.segments) for row in given])
        seeds = check_seeds([row.seed for row in given])
        prompts = [_needed(row, number) for number, row in enumerate(given)]
        reading, self._streams = lay_out(prompts, device)
        longest = [max(map(len, own.values())) for own in prompts]
        self._used = np.array(longest)
        """Ids of each row that the model has read, as far as they count."""
        self._counts = np.zeros(len(given), int)
        """Ids drawn for each row, fillers behind a finished one's included."""
        ends = [config.guidance_interval[1] for config in self._configs]
        self._guided = np.array([np.inf if end is None else end for end in ends])
        """Number of new ids of each row from which on its other streams have no say."""
        self._done = np.zeros(len(given), bool)
        """Rows that are known to be finished."""
        self._collected = np.zeros(len(given), bool)
        self._groups: list[_Group] | None = None
        self._step = 0

        self._cache, self._capacity = _make_cache(model, reading, self._used, self._limits)
        logits = _read_prompts(model, reading, self._cache)  # (N, V)
        self._constraint = Constraint([row.segments for row in given], logits.shape[-1], device)
        most = max(1, int(self._limits.max()))
        self._noise = Noise(seeds, most, *self._constraint.span, device)
        self._ids = torch.zeros(len(given), most, dtype=torch.long, device=device)
        self._lengths = torch.zeros(len(given), dtype=torch.long, device=device)
        self._steps = torch.zeros(len(given), 1, dtype=torch.long, device=device)
        self._finite = FiniteCheck(device)
        self._going = self._was_going = ~self._constraint.finished()
        start, stop = self._constraint.span
        self._choose(logits[:, start:stop])

    def __len__(self) -> int:
        """Return the number of rows that are not known to be finished."""
        return int((~self._done).sum())

    @property
    def takes_rows(self) -> bool:
        """Whether the model's cache lets other rows `join`."""
        return hasattr(self._cache, "join")

    @property
    def drawn(self) -> int:
        """Number of ids drawn for the rows that are not known to be finished."""
        return int(self._counts[~self._done].sum())

    @property
    def names(self) -> list[Name]:
        """The rows that are not known to be finished."""
        return [name for name, done in zip(self._names, self._done, strict=True) if not done]

    @torch.inference_mode()
    def step(self) -> None:
        """Draw one more id for every row; there must be one that is not finished.

        Raises:
            FloatingPointError: What ids are chosen by is not finite.
        """
        self._let_go()
        fed = self._streams.feed(self._ids.gather(1, self._at() - 1)[:, 0])
        start, stop = self._constraint.span
        if self._spans is not None:
            logits = self._spans.decode_span(fed, self._cache, start, stop)
        else:
            logits = self._model.decode_one_token(fed, self._cache)[:, start:stop]
        self._used += 1
        self._choose(logits)

    @torch.inference_mode()
    def join(self, other: Batch[Name]) -> None:
        """Take in the rows of another batch of the same model, which is of no use afterwards.

        Both must have a row that is not finished; `collect` the ids of the others first.

        Raises:
            ValueError: The model's cache cannot take rows in, or both have a row of one name.
        """
        if not self.takes_rows:
            raise ValueError("model: wanted a cache with a method `join`, got one without")
        if twice := set(self.names) & set(other.names):
            raise ValueError(f"rows: wanted other names than those in the batch, got {twice}")
        for batch in (self, other):
            batch._finite.report()
            batch._let_go(all_of_them=True)
        self._cache.join(other._cache)
        self._capacity = max(self._capacity, other._capacity)
        self._streams = self._streams.join(other._streams)
        self._constraint = self._constraint.join(other._constraint)
        self._noise.join(other._noise, *self._constraint.span)
        self._ids = cat_rows(self._ids, other._ids)
        for name in _OF_THE_DEVICE:
            setattr(self, name, torch.cat([getattr(self, name), getattr(other, name)]))
        for name in _OF_THE_HOST:
            setattr(self, name, np.concatenate([getattr(self, name), getattr(other, name)]))
        self._names += other._names
        self._configs += other._configs
        self._groups = None

    def collect(self) -> dict[Name, Tensor]:
        """Return the new ids (length,), on the CPU, of rows that have finished since last asked."""
        rows = np.flatnonzero(self._done & ~self._collected)
        self._collected[rows] = True
        return self._read(rows.tolist())

    def drop(self, names: Iterable[Hashable]) -> None:
        """Forget rows, finished or not; names of no row are ignored."""
        gone = set(names)
        for row, name in enumerate(self._names):
            if name in gone:
                self._done[row] = self._collected[row] = True

    def peek(self, names: Iterable[Name]) -> dict[Name, Tensor]:
        """Return the new ids so far, (length,) on the CPU, of rows that are here."""
        wanted = set(names)
        return self._read([row for row, name in enumerate(self._names) if name in wanted])

    def latest(self) -> tuple[list[Name], Tensor, Tensor]:
        """Return names, last ids (B,), and whether each belongs to its row's output (B,).

        The tensors are on the model's device; finished rows may be among them, with a filler.
        """
        ids = self._ids.gather(1, self._at() - 1)[:, 0]
        return list(self._names), ids, self._was_going

    def _read(self, rows: Sequence[int]) -> dict[Name, Tensor]:
        # not in inference mode, so that the ids can be used in training
        if not rows:
            return {}
        self._finite.report()
        index = torch.tensor(rows, device=self._device)
        ids, lengths = self._ids[index].cpu(), self._lengths[index].tolist()
        return {
            self._names[row]: own[:length].clone()
            for row, own, length in zip(rows, ids, lengths, strict=True)
        }

    def _at(self) -> Tensor:
        """Return the column (B, 1) behind each row's last id."""
        return self._steps.clamp(max=self._ids.shape[1])

    def _choose(self, logits: Tensor) -> None:
        """Choose an id for every row by the span's logits after its last, and count it."""
        start, stop = self._constraint.span
        logits = logits.float()
        allowed = None if self._constraint.free else self._constraint.allowed()[:, start:stop]
        groups = self._grouped()
        draws = any(group.config.sampler != "greedy" for group in groups)
        # a finished row's fillers may go beyond the last column
        column = self._steps.clamp(max=self._ids.shape[1] - 1)
        noise = self._noise.at(column) if draws else None
        ids, largest = column.new_empty(len(column)), logits.new_empty(len(column))
        for group in groups:
            rows, config = group.rows, group.config
            streams: dict[Stream, Tensor] = {
                name: logits[places] for name, places in group.places.items()
            }
            mask = None if allowed is None else allowed[rows]
            scores = combine(streams, mask, config, group.step)
            largest[rows] = scores.amax(-1)
            ids[rows] = start + draw(
                scores, None if noise is None else noise[rows], config, group.step
            )
        self._finite.see(largest, self._step)
        self._ids.scatter_(1, column, ids[:, None])
        self._lengths += self._going
        self._constraint.advance(ids)
        self._was_going, self._going = self._going, ~self._constraint.finished()
        self._steps = self._steps + 1
        self._counts += 1
        self._step += 1
        self._done |= self._counts >= self._limits
        asked = self._device.type == "cpu" or self._step % ASKED_EVERY == 0
        if self._constraint.ends_early and asked:
            self._done |= ~self._going.cpu().numpy()

    def _grouped(self) -> list[_Group]:
        """Return the rows by their settings."""
        same = all(config.guidance_interval == (0, None) for config in self._configs)
        if self._groups is not None and same:
            return self._groups
        members: dict[tuple[SamplingConfig, bool], list[int]] = {}
        for row, config in enumerate(self._configs):
            members.setdefault((config, acts(config, self._counts[row])), []).append(row)
        self._groups = []
        for (config, acting), rows in members.items():
            streams = config.streams if acting else config.streams[:1]
            self._groups.append(
                _Group(
                    config,
                    int(self._counts[rows[0]]),
                    run(rows) or torch.tensor(rows, device=self._device),
                    {stream: self._streams.places(stream, rows) for stream in streams},
                )
            )
        return self._groups

    def _let_go(self, *, all_of_them: bool = False) -> None:
        """Let finished rows go, and streams that guidance no longer needs, if the cache can."""
        if not hasattr(self._cache, "select_rows"):
            return
        behind = self._counts >= self._guided
        if not (self._done | behind).any():
            return  # as in nearly every step
        bare = set(np.flatnonzero(behind).tolist())
        left = np.flatnonzero(~self._done).tolist()
        streams, order = self._streams.select(left, bare)
        if len(order) == self._streams.size:
            return
        # a graph of another batch size is dear where steps are compiled
        few = 2 * len(order) > self._streams.size and not bare
        room = int(self._used.max()) < self._capacity
        if few and room and self._device.type != "cpu" and not all_of_them:
            return
        self._cache.select_rows(torch.tensor(order, device=self._device))
        self._streams = streams
        if len(left) < len(self._names):
            self._keep(left)
        self._groups = None

    def _keep(self, rows: list[int]) -> None:
        self._finite.report()  # it names rows by their places
        index = torch.tensor(rows, device=self._device)
        self._constraint.select_rows(rows)
        self._noise.select_rows(index)
        self._ids = self._ids[index]
        for name in _OF_THE_DEVICE:
            setattr(self, name, getattr(self, name)[index])
        for name in _OF_THE_HOST:
            setattr(self, name, getattr(self, name)[rows])
        self._names = [self._names[row] for row in rows]
        self._configs = [self._configs[row] for row in rows]


def _needed(row: Row, number: int) -> dict[Stream, Tensor]:
    missing = [name for name in row.config.streams if name not in row.prompts]
    if missing:
        raise ValueError(
            f"{missing[0]}: {row.config.sampler} wants such a prompt in row {number}, "
            f"got {sorted(row.prompts)}"
        )
    return {name: row.prompts[name] for name in row.config.streams}


def _make_cache(
    model: LanguageModel, reading: Reading, used: np.ndarray, limits: np.ndarray
) -> tuple[Any, int]:
    """Make a cache with a row per distinct prompt, or per batch row if it cannot repeat rows.

    Returns it with the ids that a row has room for.
    """
    # the last new id is never read again
    length = int((used + np.maximum(limits, 1)).max()) - 1
    most = int(used.max() + max(1, limits.max())) - 1
    rows, all_rows = len(reading.distinct), len(reading.lengths)
    try:
        if reading.stems is not None:
            cache = model.make_cache(len(reading.stems.lengths), length)
            if shares_prefixes(cache):
                return cache, length
        cache = model.make_cache(rows, length)
        if (rows, length) != (all_rows, most) and not hasattr(cache, "select_rows"):
            length = most  # finished rows stay, and are fed as long as the others
            cache = model.make_cache(all_rows, length)
    except ValueError as error:
        row = int((used + limits).argmax())
        raise ValueError(
            f"prompts: a prompt of {used[row]} and {limits[row]} new ids do not fit the model: "
            f"{error}"
        ) from error
    return cache, length


def _read_prompts(model: LanguageModel, reading: Reading, cache: Any) -> Tensor:
    """Read the prompts into the cache of `_make_cache` and return the logits (N, V) after them."""
    ids, lengths, stems = reading.input_ids, reading.lengths, reading.stems
    if stems is not None and shares_prefixes(cache):
        model.prefill(stems.ids, stems.lengths, cache)
        cache.select_rows(stems.of_prompt)
        logits = model.prefill(stems.rests, stems.rest_lengths, cache)
    elif len(reading.distinct) == len(lengths) or not hasattr(cache, "select_rows"):
        return model.prefill(ids, lengths, cache)
    else:
        logits = model.prefill(ids[reading.distinct], lengths[reading.distinct], cache)
    if len(reading.distinct) < len(lengths):
        cache.select_rows(reading.copies)
    return logits[reading.copies]


def shares_prefixes(cache: Any) -> bool:
    """Tell whether what prompts begin with in common had better be read once."""
    return bool(getattr(cache, "shares_prefixes", False)) and hasattr(cache, "select_rows")
