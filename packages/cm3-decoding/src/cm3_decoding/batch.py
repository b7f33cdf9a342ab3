"""Rows that a model continues together, each by settings of its own; rows come and go.

A `Batch` reads the prompts of its rows and draws an id for each, then more in every step. Rows
that are finished leave, and `join` takes in another batch's rows where its own have left room: so a
service draws for those who wait as soon as it can, and texts of unequal lengths fill each other's
place. `generate` and `generate_rows` are loops over it.

With a `lookahead`, a pass of the model reads a row's last id and guesses of those that follow, and
so draws several. The random numbers of every place are fixed by the seed. So the ids behind right
guesses are those that steps of one id draw, not just others of the same distribution. The guesses
are what the pass before drew behind a wrong one, from the random numbers of their places. This is
speculative Jacobi decoding (arXiv 2410.01699) with coupled guesses (arXiv 2510.24211), a guess
being right if it is what is drawn.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

import numpy as np
import torch
from torch import Tensor

from cm3_decoding.config import SamplingConfig, Stream
from cm3_decoding.constraints import Constraint, max_new_tokens
from cm3_decoding.finite import FiniteCheck
from cm3_decoding.interface import DecodesSpans, LanguageModel, ReadsAhead
from cm3_decoding.noise import Noise, cat_rows, check_seeds
from cm3_decoding.prompt_reading import make_cache, read_prompts
from cm3_decoding.sampling import acts, combine, draw
from cm3_decoding.segments import ConstraintSegment
from cm3_decoding.streams import lay_out, run
from cm3_decoding.whole_numbers import whole

ASKED_EVERY = 8
"""Steps after which an accelerator is asked which rows have stopped: asking makes it wait."""

MOST_READ = {"cpu": 64}
"""Ids of all rows, streams included, that a pass of a look ahead may have on a kind of device: with
more, the time of a pass grows as fast as the number of ids that it draws."""
MOST_READ_ELSEWHERE = 256
LEAST_AHEAD = 4
"""Ids of a row below which reading ahead does not pay: where there is room for fewer, none is."""

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


_TABLES = ("_ids", "_guesses")
"""Ids of each row, (B, columns); two batches may differ in columns."""
_OF_THE_DEVICE = ("_lengths", "_steps", "_going")
"""What a batch keeps of each row besides, in tensors."""
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
        *,
        lookahead: int = 1,
    ) -> None:
        """Read the prompts of at least one row and draw the first id of each.

        Args:
            model: In eval mode, on `device`.
            rows: By names of any kind.
            device: The model's device.
            lookahead: Most ids of a row that a pass reads, a power of two or the next below one,
                and fewer where there are many rows; with more than 1 the model must be a
                `ReadsAhead`. Where a row's guidance acts for a while only, all are read id by id.
                Ids that can only follow are read at once in any case.

        Raises:
            ValueError: A row lacks a prompt or has no place in the model's context, or the model
                cannot look ahead.
            FloatingPointError: What ids are chosen by is not finite.
        """
        self._model, self._device = model, torch.device(device)
        self._spans = model if isinstance(model, DecodesSpans) else None
        self._lookahead = whole("lookahead", lookahead, 1)
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

        self._cache, self._capacity = make_cache(model, reading, self._used, self._limits)
        takes_back = hasattr(self._cache, "forget") and hasattr(self._cache, "select_rows")
        self._several = model if isinstance(model, ReadsAhead) and takes_back else None
        if self._several is None and self._lookahead > 1:
            raise ValueError(
                f"lookahead: wanted 1 or a model with `decode_several`, and a cache with `forget` "
                f"and `select_rows`, got {lookahead} for {type(model).__name__}"
            )
        logits = read_prompts(model, reading, self._cache)  # (N, V)
        self._constraint = Constraint([row.segments for row in given], logits.shape[-1], device)
        most = max(1, int(self._limits.max()))
        self._noise = Noise(seeds, most, *self._constraint.span, device)
        self._ids = torch.zeros(len(given), most, dtype=torch.long, device=device)
        self._lengths = torch.zeros(len(given), dtype=torch.long, device=device)
        self._steps = torch.zeros(len(given), 1, dtype=torch.long, device=device)
        self._finite = FiniteCheck(device)
        self._going = ~self._constraint.finished()
        self._guesses = self._ids[:, :0]
        """What the ids behind each row's last may be (B, T), for a look ahead."""
        start, stop = self._constraint.span
        self._choose(logits[:, None, start:stop], self._guesses)

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
        return list(self.counts)

    @property
    def counts(self) -> dict[Name, int]:
        """Number of ids drawn for each row that is not known to be finished."""
        rows = np.flatnonzero(~self._done).tolist()
        return {self._names[row]: int(self._counts[row]) for row in rows}

    @torch.inference_mode()
    def step(self) -> None:
        """Draw at least one more id for every row; there must be one that is not finished.

        Raises:
            FloatingPointError: What ids are chosen by is not finite.
        """
        self._let_go()
        guesses = self._guess()
        last = self._ids.gather(1, self._at() - 1)  # (B, 1)
        if not guesses.shape[1]:
            logits = self._read_one(self._streams.feed(last[:, 0]))
            self._used += 1
            self._choose(logits, guesses)
            return
        assert self._several is not None
        fed = self._streams.feed(torch.cat([last, guesses], 1))
        logits = self._several.decode_several(fed, self._cache, *self._constraint.span)
        taken = self._choose(logits, guesses)
        self._used += taken
        if taken.min() < fed.shape[1]:
            wrong = torch.from_numpy(fed.shape[1] - taken).to(self._device)
            self._cache.forget(self._streams.feed(wrong))

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
        self._lookahead = max(self._lookahead, other._lookahead)
        for name in _TABLES:
            setattr(self, name, cat_rows(getattr(self, name), getattr(other, name)))
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

    def at(self, place: int) -> tuple[list[Name], Tensor, Tensor]:
        """Return names, the ids (B,) at a place, and whether each belongs to its row's output (B,).

        The tensors are on the model's device; finished rows may be among them, with fillers.
        """
        column = min(place, self._ids.shape[1] - 1)
        return list(self._names), self._ids[:, column], self._lengths > place

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

    def _guess(self) -> Tensor:
        """Return what the next ids may be (B, T), as many as it pays to read with the last one."""
        room = min(self._most, self._capacity - int(self._used.max())) - 1
        width, known = min(self._reach, room), None
        if self._constraint.forces and room > 0:
            known = self._constraint.known(self._counts.tolist(), room)
            width = max(width, int((known[~self._done] >= 0).cumprod(1).sum(1).min()))
        if width < 1:
            return self._guesses[:, :0]
        width = _power_of_two(width + 1) - 1  # each width is a graph where steps are compiled
        filler, missing = self._constraint.span[0], width - self._guesses.shape[1]
        guesses = torch.nn.functional.pad(self._guesses, (0, missing), value=filler)
        if known is None:
            return guesses
        ids = torch.from_numpy(known[:, :width]).to(self._device)
        return torch.where(ids >= 0, ids, guesses)

    @property
    def _most(self) -> int:
        """Ids of a row that a pass may read."""
        if self._several is None or not self._steady:
            return 1
        most = MOST_READ.get(self._device.type, MOST_READ_ELSEWHERE)
        return max(1, most // self._streams.size)

    @property
    def _reach(self) -> int:
        """Guesses that a pass should read."""
        if self._most < LEAST_AHEAD:
            return 0
        return _power_of_two(min(self._lookahead, self._most)) - 1

    def _read_one(self, fed: Tensor) -> Tensor:
        """Read an id (N,) of each of the model's rows; return the span's logits (N, 1, S)."""
        start, stop = self._constraint.span
        if self._spans is not None:
            return self._spans.decode_span(fed, self._cache, start, stop)[:, None]
        return self._model.decode_one_token(fed, self._cache)[:, None, start:stop]

    def _choose(self, logits: Tensor, guesses: Tensor) -> np.ndarray:
        """Choose ids for every row and count those that are right; return their numbers (B,).

        Args:
            logits: The span's logits (N, T, S) after its last id and after each guess.
            guesses: What the chosen ids (B, T) but the last were held to be, (B, T - 1).
        """
        width, (start, stop) = logits.shape[1], self._constraint.span
        logits = logits.float()
        allowed = None
        if not self._constraint.free:
            allowed = self._constraint.ahead(guesses)[..., start:stop]
        groups = self._grouped()
        noise = self._noise_of(groups, self._steps, width)
        ids = guesses.new_empty(len(guesses), width)
        largest = logits.new_empty(ids.shape)
        last: list[Tensor] = []
        for group in groups:
            rows, config = group.rows, group.config
            streams: dict[Stream, Tensor] = {
                name: logits[places].flatten(0, 1) for name, places in group.places.items()
            }
            mask = None if allowed is None else allowed[rows].flatten(0, 1)
            scores = combine(streams, mask, config, group.step)  # (B * T, S)
            numbers = None if noise is None else noise[rows].flatten(0, 1)
            drawn = draw(scores, numbers, config, group.step)
            ids[rows] = start + drawn.unflatten(0, (-1, width))
            scores = scores.unflatten(0, (-1, width))
            largest[rows] = scores.amax(-1)
            last.append(scores[:, -1:])
        behind = self._steps + width
        taken = self._take(ids, largest, guesses)
        if self._reach:
            self._look(ids, taken, behind, last)
        return taken

    def _look(self, ids: Tensor, taken: np.ndarray, behind: Tensor, last: Sequence[Tensor]) -> None:
        """Guess what stands behind the ids (B, T) of which `taken` (B,) were right.

        Those behind a wrong guess are guesses now. At places from `behind` (B, 1) on it is what
        the `last` scores (rows, 1, S) of each group would draw there.
        """
        width, start = ids.shape[1], self._constraint.span[0]
        more = self._reach - width + int(taken.max())
        if more > 0:
            groups = self._grouped()
            noise = self._noise_of(groups, behind, more)
            new = ids.new_empty(len(ids), more)
            for group, scores in zip(groups, last, strict=True):
                numbers = None if noise is None else noise[group.rows]
                new[group.rows] = start + draw(scores, numbers, group.config, group.step)
            ids = torch.cat([ids, new], 1)
        places = torch.from_numpy(taken[:, None] + np.arange(self._reach))
        self._guesses = ids.gather(1, places.to(self._device))

    def _noise_of(self, groups: Sequence[_Group], first: Tensor, count: int) -> Tensor | None:
        """Return the random numbers (B, count, S) of places from `first` (B, 1) on, if needed."""
        if all(group.config.sampler == "greedy" for group in groups):
            return None
        places = first + torch.arange(count, device=self._device)
        # a finished row's fillers may go beyond the last column
        return self._noise.at(places.clamp(max=self._ids.shape[1] - 1))

    def _take(self, ids: Tensor, largest: Tensor, guesses: Tensor) -> np.ndarray:
        """Add those chosen ids (B, T) to the rows that follow right guesses; return their numbers.

        `largest` (B, T) are the scores of the likeliest ids.
        """
        numbers = np.ones(len(ids), int)
        if not guesses.shape[1]:
            self._add(ids[:, 0], largest[:, 0], self._going)
        else:
            right = (ids[:, :-1] == guesses).long().cumprod(1).sum(1).cpu().numpy()
            # what a row has reached is not exceeded, but by a finished one's fillers
            numbers = np.minimum(right + 1, np.maximum(self._limits - self._counts, 1))
            number = torch.from_numpy(numbers).to(self._device)
            for place in range(int(numbers.max())):
                here = number > place
                self._add(ids[:, place], largest[:, place], self._going & here, here)
        self._counts += numbers
        self._step += 1
        self._done |= self._counts >= self._limits
        asked = self._device.type == "cpu" or self._step % ASKED_EVERY == 0
        if self._constraint.ends_early and asked:
            self._done |= ~self._going.cpu().numpy()
        return numbers

    def _add(self, ids: Tensor, largest: Tensor, going: Tensor, here: Tensor | None = None) -> None:
        """Add an id (B,) to the rows that are `going` (B,); the others' stay.

        `here` (B,) are these and finished ones; without it, all.
        """
        column = self._steps.clamp(max=self._ids.shape[1] - 1)
        ids = torch.where(going, ids, self._ids.gather(1, column)[:, 0])
        self._finite.see(torch.where(going, largest, 0.0), self._step)
        self._ids.scatter_(1, column, ids[:, None])
        self._lengths += going
        self._constraint.advance(ids, here)
        self._going = ~self._constraint.finished()
        self._steps = self._steps + (1 if here is None else here[:, None].long())

    @property
    def _steady(self) -> bool:
        """Whether rows are drawn in one way from the first id to the last."""
        return all(config.guidance_interval == (0, None) for config in self._configs)

    def _grouped(self) -> list[_Group]:
        """Return the rows by their settings."""
        if self._groups is not None and self._steady:
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
        for name in (*_TABLES, *_OF_THE_DEVICE):
            setattr(self, name, getattr(self, name)[index])
        for name in _OF_THE_HOST:
            setattr(self, name, getattr(self, name)[rows])
        self._names = [self._names[row] for row in rows]
        self._configs = [self._configs[row] for row in rows]


def _power_of_two(number: int) -> int:
    """Return the largest power of two that is at most a number above 0."""
    return 1 << (number.bit_length() - 1)


def _needed(row: Row, number: int) -> dict[Stream, Tensor]:
    missing = [name for name in row.config.streams if name not in row.prompts]
    if missing:
        raise ValueError(
            f"{missing[0]}: {row.config.sampler} wants such a prompt in row {number}, "
            f"got {sorted(row.prompts)}"
        )
    return {name: row.prompts[name] for name in row.config.streams}
