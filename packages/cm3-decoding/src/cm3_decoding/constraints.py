"""The ids allowed at each step: every row of a batch goes through its own segments.

`Constraint` walks all rows through their segments together: at each step it says which ids are
allowed, takes the chosen ones, and says which rows have finished.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from cm3_decoding.segments import CodeBlock, ConstraintSegment, Forced, Interleaved, TextUntil


def max_new_tokens(segments: Sequence[ConstraintSegment]) -> int:
    """Return the most ids that a row with these segments can produce."""
    total = 0
    for segment in segments:
        most = sum(phase.limit for phase, _ in _phases([segment]))
        limit = segment.max_new_tokens if isinstance(segment, Interleaved) else None
        total += most if limit is None else min(most, limit)
    return total


class Constraint:
    """The position of each of B rows in its segments; each step is tensor operations alone.

    Segments become phases: a set of allowed ids, the ids that end the phase, and the most ids it
    may have. A forced id is a phase with one allowed id. A step then looks up tables:

        row 0 draws 2 codes, 9, 1 code:  phases  codes x2 | 9 | codes x1 | done
        after its second code it is in phase 1, where only 9 is allowed

    A text that may open a picture leads either to the next phase, the picture, or past all phases
    of the segment. Where the segment has a limit for all its phases, ids are counted from its start
    as well, and the id that opens a picture is allowed only while the picture fits.
    """

    def __init__(
        self,
        rows: Sequence[Sequence[ConstraintSegment]],
        vocab_size: int,
        device: torch.device | str = "cpu",
    ) -> None:
        """Build the tables of the phases; every row starts at its first segment."""
        self._rows, self._vocab_size = [tuple(segments) for segments in rows], vocab_size
        plans = [_phases(segments) for segments in rows]
        # Equal phases share a line of the tables; the last line is for finished rows.
        phases = dict.fromkeys(phase for plan in plans for phase, _ in plan)
        lines = {phase: line for line, phase in enumerate(phases)}
        allowed = torch.zeros(len(lines) + 1, vocab_size, dtype=torch.bool)
        ends, opens = torch.zeros_like(allowed), torch.zeros_like(allowed)
        limits = torch.zeros(len(lines) + 1, dtype=torch.long)
        totals, last_opens = (torch.full_like(limits, _UNLIMITED) for _ in range(2))
        for phase, line in lines.items():
            phase.mark(allowed[line], ends[line], opens[line])
            limits[line] = phase.limit
            if phase.total is not None:
                totals[line], last_opens[line] = phase.total, phase.total - phase.picture_cost - 1
        possible = allowed.any(0).nonzero()[:, 0].tolist() or [0]
        self.span = (possible[0], possible[-1] + 1)
        """Range `[start, stop)` that holds every id allowed in any row at any step."""
        self.free = bool(allowed[:-1, slice(*self.span)].all())
        """Whether every id of the span is allowed at every step."""
        self._early = [any(phase.ends_early for phase, _ in plan) for plan in plans]
        self._forced = [_forced(phase for phase, _ in plan) for plan in plans]
        self.forces = any(bool((ids >= 0).any()) for ids in self._forced)
        """Whether ids of some row can be `known` before they are drawn."""
        allowed[-1, self.span[0]] = True  # a finished row must be fed something

        longest = max(map(len, plans), default=0) + 1
        plan = torch.full((len(rows), longest), len(lines))
        skip = torch.ones_like(plan)
        segment = torch.zeros_like(plan)
        for row, segments in enumerate(rows):
            counts = [len(_phases([part])) for part in segments]
            numbers = torch.arange(len(counts)).repeat_interleave(torch.tensor(counts).long())
            segment[row, : len(numbers)] = numbers
        for row, steps in enumerate(plans):
            plan[row, : len(steps)] = torch.tensor([lines[phase] for phase, _ in steps])
            skip[row, : len(steps)] = torch.tensor([jump for _, jump in steps])
        self._allowed, self._ends = allowed.to(device), ends.to(device)  # (P, V)
        self._opens = opens.to(device)  # (P, V)
        self._limits = limits.to(device)  # (P,)
        self._totals, self._last_opens = totals.to(device), last_opens.to(device)  # (P,)
        self._limited = bool((totals != _UNLIMITED).any())
        self._segment = segment.to(device)  # (B, phases of the longest + 1)
        self._spent = torch.zeros(len(rows), dtype=torch.long, device=device)
        self._plan, self._skip = plan.to(device), skip.to(device)  # (B, phases of the longest + 1)
        self._done = len(lines)
        self._phase = torch.zeros(len(rows), 1, dtype=torch.long, device=device)
        self._count = torch.zeros(len(rows), dtype=torch.long, device=device)
        self._runs = _run_table(list(lines)).to(device)  # (P, runs, length of the longest)
        self._recent = torch.full((len(rows), self._runs.shape[-1]), _NOTHING, device=device)

    @property
    def ends_early(self) -> bool:
        """Whether the drawn ids decide when a row is finished."""
        return any(self._early)

    def select_rows(self, rows: Sequence[int]) -> None:
        """Make old row `rows[i]` the new row i, where it stands."""
        self._rows = [self._rows[row] for row in rows]
        self._early = [self._early[row] for row in rows]
        self._forced = [self._forced[row] for row in rows]
        index = torch.tensor(rows, device=self._phase.device)
        self._plan, self._skip = self._plan[index], self._skip[index]
        self._segment, self._phase = self._segment[index], self._phase[index]
        self._count, self._spent = self._count[index], self._spent[index]
        self._recent = self._recent[index]

    def join(self, other: Constraint) -> Constraint:
        """Return one's rows and those of another behind them, each where it stands."""
        joined = Constraint([*self._rows, *other._rows], self._vocab_size, self._phase.device)
        both = self, other
        joined._phase = torch.cat([one._phase for one in both])
        joined._count = torch.cat([one._count for one in both])
        joined._spent = torch.cat([one._spent for one in both])
        width = joined._recent.shape[1]
        joined._recent = torch.cat(
            [
                torch.nn.functional.pad(
                    one._recent, (width - one._recent.shape[1], 0), value=_NOTHING
                )
                for one in both
            ]
        )
        return joined

    def allowed(self) -> Tensor:
        """Return the mask (B, V) of the ids that may come next."""
        line = self._line()
        allowed = self._allowed[line]
        if self._limited:
            late = self._spent > self._last_opens[line]
            allowed = allowed & ~(self._opens[line] & late[:, None])
        return allowed

    def ahead(self, guesses: Tensor) -> Tensor:
        """Return the masks (B, T + 1, V) of what may come next, and behind each of guesses (B, T).

        The rows stay where they are.
        """
        state = self._state()
        masks = [self.allowed()]
        for ids in guesses.unbind(1):
            self.advance(ids)
            masks.append(self.allowed())
        self._phase, self._count, self._spent, self._recent = state
        return torch.stack(masks, 1)

    def known(self, counts: Sequence[int], most: int) -> np.ndarray:
        """Return the ids (B, most) that can only follow; -1 where others may, or none.

        Args:
            counts: Number of ids (B,) that each row has.
            most: Number of ids to look ahead.
        """
        found = np.full((len(self._rows), most), -1)
        for row, count in enumerate(counts):
            ids = self._forced[row][count : count + most]
            found[row, : len(ids)] = ids
        return found

    def finished(self) -> Tensor:
        """Return the mask (B,) of the rows whose segments are all complete."""
        return self._line() == self._done

    def advance(self, input_ids: Tensor, going: Tensor | None = None) -> None:
        """Move every row, or those that are `going` (B,), on by the id chosen for it, (B,)."""
        if going is None:
            self._advance(input_ids)
            return
        before = self._state()
        self._advance(input_ids)
        self._phase, self._count, self._spent, self._recent = (
            torch.where(going.view(-1, *[1] * (new.ndim - 1)), new, old)
            for new, old in zip(self._state(), before, strict=True)
        )

    def _state(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        return self._phase, self._count, self._spent, self._recent

    def _advance(self, input_ids: Tensor) -> None:
        line = self._line()
        self._count = self._count + 1
        over = (self._count >= self._limits[line]) | self._ends[line, input_ids]
        if self._limited:
            self._spent = self._spent + 1
            over |= self._spent >= self._totals[line]
        if self._runs.numel():
            over |= self._a_run_ends(line, input_ids)
        over &= line != self._done
        self._count = self._count.masked_fill(over, 0)
        self._recent = self._recent.masked_fill(over[:, None], _NOTHING)
        jump = self._skip.gather(1, self._phase)[:, 0].masked_fill(self._opens[line, input_ids], 1)
        before = self._phase
        self._phase = before + (jump * over)[:, None]
        if self._limited:
            same = self._segment.gather(1, before) == self._segment.gather(1, self._phase)
            self._spent = self._spent * same[:, 0]

    def _a_run_ends(self, line: Tensor, input_ids: Tensor) -> Tensor:
        """Return the mask (B,) of the rows whose last ids are a stop sequence of their phase."""
        self._recent = torch.cat([self._recent[:, 1:], input_ids[:, None]], 1)
        runs = self._runs[line]  # (B, runs, length)
        return ((runs == self._recent[:, None]) | (runs == _ANYTHING)).all(-1).any(-1)

    def _line(self) -> Tensor:
        return self._plan.gather(1, self._phase)[:, 0]  # (B,)


_UNLIMITED = 2**62
_ANYTHING, _NOTHING, _NEVER = -1, -2, -3
"""Placeholders for an id: before a short stop sequence, before the phase, and in no sequence."""


def _run_table(phases: Sequence[_Phase]) -> Tensor:
    """Tabulate every phase's and the end's stop sequences, (P, runs, length), right-aligned."""
    most = max((len(phase.runs) for phase in phases), default=0)
    longest = max((len(run) for phase in phases for run in phase.runs), default=0)
    table = torch.full((len(phases) + 1, most, longest), _NEVER)
    for line, phase in enumerate(phases):
        for at, run in enumerate(phase.runs):
            table[line, at, : longest - len(run)] = _ANYTHING
            table[line, at, longest - len(run) :] = torch.tensor(run)
    return table


@dataclass(frozen=True)
class _Phase:
    start: int
    stop: int
    limit: int
    stop_ids: tuple[int, ...] = ()
    forbidden: tuple[int, ...] = ()
    runs: tuple[tuple[int, ...], ...] = ()
    open_ids: tuple[int, ...] = ()
    total: int | None = None  # ids of the whole segment
    picture_cost: int = 0

    @property
    def ends_early(self) -> bool:
        """Whether drawn ids decide when it ends."""
        return bool(self.stop_ids or self.open_ids or self.runs)

    def mark(self, allowed: Tensor, ends: Tensor, opens: Tensor) -> None:
        """Write the phase into its lines (V,) of the three tables."""
        named = [*self.stop_ids, *self.open_ids, *self.forbidden, *sum(self.runs, ())]
        largest = max(self.stop - 1, *named, 0)
        if largest >= len(allowed):
            raise ValueError(
                f"constraint: wanted ids below the model's {len(allowed)} logits, got {largest}"
            )
        allowed[self.start : self.stop] = True
        allowed[list(self.forbidden)] = False
        for ids in (self.stop_ids, self.open_ids):
            allowed[list(ids)] = True
            ends[list(ids)] = True
        opens[list(self.open_ids)] = True
        if not allowed.any():
            raise ValueError("constraint: a segment allows nothing; `forbidden` covers its range")


def _phases(segments: Sequence[ConstraintSegment]) -> list[tuple[_Phase, int]]:
    """Return the phases of a row, each with the number of phases to move on by at its end."""
    phases: list[tuple[_Phase, int]] = []
    for segment in segments:
        match segment:
            case CodeBlock():
                phases.append((_codes(segment), 1))
            case TextUntil():
                phases.append((_text(segment), 1))
            case Forced(ids=ids):
                phases += [(_one(token), 1) for token in ids]
            case Interleaved():
                after = [(_codes(segment.picture), 1)]
                after += [(_one(token), 1) for token in segment.close_ids]
                total, cost, text = segment.max_new_tokens, segment.picture_cost, segment.text
                opening = _text(text, (segment.open_id,), total=total, picture_cost=cost)
                for left in range(segment.max_pictures, 0, -1):
                    rest = left * (1 + len(after)) + 1  # past the last stretch of text
                    phases += [(opening, rest), *after]
                phases.append((_text(text, forbidden=(segment.open_id,), total=total), 1))
    return phases


def _forced(phases: Iterable[_Phase]) -> np.ndarray:
    """Return which id must stand at each place of a row, -1 where others may.

    It ends where drawn ids decide how it goes on.
    """
    parts = []
    for phase in phases:
        if phase.ends_early or phase.total is not None:
            break
        parts.append(np.full(phase.limit, phase.start if phase.stop == phase.start + 1 else -1))
    return np.concatenate([np.zeros(0, int), *parts])


def _codes(block: CodeBlock) -> _Phase:
    return _Phase(block.start, block.stop, block.length)


def _one(token: int) -> _Phase:
    return _Phase(token, token + 1, 1)


def _text(
    text: TextUntil,
    open_ids: tuple[int, ...] = (),
    forbidden: tuple[int, ...] = (),
    total: int | None = None,
    picture_cost: int = 0,
) -> _Phase:
    return _Phase(
        text.start,
        text.stop,
        text.max_new_tokens,
        text.stop_ids,
        text.forbidden + forbidden,
        text.stop_sequences,
        open_ids,
        total,
        picture_cost,
    )
