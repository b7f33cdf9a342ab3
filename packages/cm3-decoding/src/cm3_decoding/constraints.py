"""The ids allowed at each step: every row of a batch goes through its own segments.

A picture is one `CodeBlock`, a caption one `TextUntil`, and a text that may open pictures anywhere
one `Interleaved`. A region to redraw is a run of codes, then a `Forced` mask token, then the next
run; a gap in a text is filled in the same way. `Constraint` walks all rows through their segments
together: at each step it says which ids are allowed, takes the chosen ones, and says which rows
have finished.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class CodeBlock:
    """Exactly `length` ids from `start` to `stop - 1`."""

    start: int
    """First id allowed."""
    stop: int
    """First id behind those allowed."""
    length: int
    """Number of ids."""

    def __post_init__(self) -> None:
        """Refuse an empty range or block."""
        if not 0 <= self.start < self.stop:
            raise ValueError(
                f"start, stop: wanted 0 <= start < stop, got {self.start}, {self.stop}"
            )
        if self.length < 1:
            raise ValueError(f"length: wanted at least 1, got {self.length}")


@dataclass(frozen=True, kw_only=True)
class TextUntil:
    """Ids from `start` to `stop - 1`, except `forbidden`, up to and including one of `stop_ids`."""

    start: int
    """First id allowed."""
    stop: int
    """First id behind those allowed."""
    stop_ids: tuple[int, ...]
    """Ids that end the segment. They are allowed, and part of the output."""
    max_new_tokens: int
    """Length at which the segment ends if no stop id has come."""
    forbidden: tuple[int, ...] = ()
    """Ids of the range that are not allowed, such as structural tokens, unless in `stop_ids`."""
    stop_sequences: tuple[tuple[int, ...], ...] = ()
    """Sequences of ids that end the segment too; part of the output."""

    def __post_init__(self) -> None:
        """Refuse an empty range or segment."""
        if not 0 <= self.start < self.stop:
            raise ValueError(
                f"start, stop: wanted 0 <= start < stop, got {self.start}, {self.stop}"
            )
        if self.max_new_tokens < 1:
            raise ValueError(f"max_new_tokens: wanted at least 1, got {self.max_new_tokens}")
        for name in ("stop_ids", "forbidden"):
            if any(token < 0 for token in getattr(self, name)):
                raise ValueError(f"{name}: wanted ids of at least 0, got {getattr(self, name)}")
        if any(not run or min(run) < 0 for run in self.stop_sequences):
            raise ValueError(
                f"stop_sequences: wanted runs of ids of at least 0, got {self.stop_sequences}"
            )


@dataclass(frozen=True, kw_only=True)
class Interleaved:
    """Text in which the model may open a picture, after which the text goes on."""

    text: TextUntil
    """A stretch of text; its stop ids, stop sequences and limit end the whole segment."""
    picture: CodeBlock
    """The picture after `open_id`."""
    open_id: int
    """The id that opens a picture, such as `<break>`; allowed while pictures are left."""
    close_ids: tuple[int, ...] = ()
    """Ids forced after every picture, before the text goes on."""
    max_pictures: int
    """Most pictures that may be opened."""

    def __post_init__(self) -> None:
        """Refuse an id that both opens a picture and ends the text, and no pictures at all."""
        if self.open_id < 0 or self.open_id in self.text.stop_ids:
            raise ValueError(
                f"open_id: wanted an id of at least 0 that is no stop id, got {self.open_id}"
            )
        if any(token < 0 for token in self.close_ids):
            raise ValueError(f"close_ids: wanted ids of at least 0, got {self.close_ids}")
        if self.max_pictures < 1:
            raise ValueError(f"max_pictures: wanted at least 1, got {self.max_pictures}")


@dataclass(frozen=True, kw_only=True)
class Forced:
    """These ids, one after the other, whatever their logits."""

    ids: tuple[int, ...]
    """The ids."""

    def __post_init__(self) -> None:
        """Refuse an empty segment."""
        if not self.ids or any(token < 0 for token in self.ids):
            raise ValueError(f"ids: wanted at least one id, each at least 0, got {self.ids}")


ConstraintSegment = CodeBlock | TextUntil | Interleaved | Forced
"""A part of a row's output."""


def segments_per_row(
    constraint: ConstraintSegment
    | Sequence[ConstraintSegment]
    | Sequence[Sequence[ConstraintSegment]],
    num_rows: int,
) -> list[tuple[ConstraintSegment, ...]]:
    """Return a tuple of segments per row, given a segment or list for all, or a list per row."""
    if isinstance(constraint, ConstraintSegment):
        return [(constraint,)] * num_rows
    if all(isinstance(part, ConstraintSegment) for part in constraint):
        return [tuple(constraint)] * num_rows  # type: ignore[arg-type]
    if len(constraint) != num_rows:
        raise ValueError(f"constraint: wanted segments for {num_rows} rows, got {len(constraint)}")
    return [tuple(row) for row in constraint]  # type: ignore[arg-type]


def max_new_tokens(segments: Sequence[ConstraintSegment]) -> int:
    """Return the most ids that a row with these segments can produce."""
    return sum(phase.limit for phase, _ in _phases(segments))


class Constraint:
    """The position of each of B rows in its segments; each step is tensor operations alone.

    Segments become phases: a set of allowed ids, the ids that end the phase, and the most ids it
    may have. A forced id is a phase with one allowed id. A step then looks up tables:

        row 0 draws 2 codes, 9, 1 code:  phases  codes x2 | 9 | codes x1 | done
        after its second code it is in phase 1, where only 9 is allowed

    A text that may open a picture leads either to the next phase, the picture, or past all phases
    of the segment.
    """

    def __init__(
        self,
        rows: Sequence[Sequence[ConstraintSegment]],
        vocab_size: int,
        device: torch.device | str = "cpu",
    ) -> None:
        """Build the tables of the phases; every row starts at its first segment."""
        plans = [_phases(segments) for segments in rows]
        # Equal phases share a line of the tables; the last line is for finished rows.
        phases = dict.fromkeys(phase for plan in plans for phase, _ in plan)
        lines = {phase: line for line, phase in enumerate(phases)}
        allowed = torch.zeros(len(lines) + 1, vocab_size, dtype=torch.bool)
        ends, opens = torch.zeros_like(allowed), torch.zeros_like(allowed)
        limits = torch.zeros(len(lines) + 1, dtype=torch.long)
        for phase, line in lines.items():
            phase.mark(allowed[line], ends[line], opens[line])
            limits[line] = phase.limit
        possible = allowed.any(0).nonzero()[:, 0].tolist() or [0]
        self.span = (possible[0], possible[-1] + 1)
        """Range `[start, stop)` that holds every id allowed in any row at any step."""
        self.free = bool(allowed[:-1, slice(*self.span)].all())
        """Whether every id of the span is allowed at every step."""
        self.ends_early = bool(ends.any()) or any(phase.runs for phase in lines)
        """Whether the drawn ids decide when a row is finished."""
        allowed[-1, self.span[0]] = True  # a finished row must be fed something

        longest = max(map(len, plans), default=0) + 1
        plan = torch.full((len(rows), longest), len(lines))
        skip = torch.ones_like(plan)
        for row, steps in enumerate(plans):
            plan[row, : len(steps)] = torch.tensor([lines[phase] for phase, _ in steps])
            skip[row, : len(steps)] = torch.tensor([jump for _, jump in steps])
        self._allowed, self._ends = allowed.to(device), ends.to(device)  # (P, V)
        self._opens = opens.to(device)  # (P, V)
        self._limits = limits.to(device)  # (P,)
        self._plan, self._skip = plan.to(device), skip.to(device)  # (B, phases of the longest + 1)
        self._done = len(lines)
        self._phase = torch.zeros(len(rows), 1, dtype=torch.long, device=device)
        self._count = torch.zeros(len(rows), dtype=torch.long, device=device)
        self._runs = _run_table(list(lines)).to(device)  # (P, runs, length of the longest)
        self._recent = torch.full((len(rows), self._runs.shape[-1]), _NOTHING, device=device)

    def allowed(self) -> Tensor:
        """Return the mask (B, V) of the ids that may come next."""
        return self._allowed[self._line()]

    def finished(self) -> Tensor:
        """Return the mask (B,) of the rows whose segments are all complete."""
        return self._line() == self._done

    def advance(self, input_ids: Tensor) -> None:
        """Move every row on by the id chosen for it, (B,)."""
        line = self._line()
        self._count = self._count + 1
        over = (self._count >= self._limits[line]) | self._ends[line, input_ids]
        if self._runs.numel():
            over |= self._a_run_ends(line, input_ids)
        over &= line != self._done
        self._count = self._count.masked_fill(over, 0)
        self._recent = self._recent.masked_fill(over[:, None], _NOTHING)
        jump = self._skip.gather(1, self._phase)[:, 0].masked_fill(self._opens[line, input_ids], 1)
        self._phase = self._phase + (jump * over)[:, None]

    def _a_run_ends(self, line: Tensor, input_ids: Tensor) -> Tensor:
        """Return the mask (B,) of the rows whose last ids are a stop sequence of their phase."""
        self._recent = torch.cat([self._recent[:, 1:], input_ids[:, None]], 1)
        runs = self._runs[line]  # (B, runs, length)
        return ((runs == self._recent[:, None]) | (runs == _ANYTHING)).all(-1).any(-1)

    def _line(self) -> Tensor:
        return self._plan.gather(1, self._phase)[:, 0]  # (B,)


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
                for left in range(segment.max_pictures, 0, -1):
                    rest = left * (1 + len(after)) + 1  # past the last stretch of text
                    phases += [(_text(segment.text, open_ids=(segment.open_id,)), rest), *after]
                phases.append((_text(segment.text, forbidden=(segment.open_id,)), 1))
    return phases


def _codes(block: CodeBlock) -> _Phase:
    return _Phase(block.start, block.stop, block.length)


def _one(token: int) -> _Phase:
    return _Phase(token, token + 1, 1)


def _text(
    text: TextUntil, open_ids: tuple[int, ...] = (), forbidden: tuple[int, ...] = ()
) -> _Phase:
    return _Phase(
        text.start,
        text.stop,
        text.max_new_tokens,
        text.stop_ids,
        text.forbidden + forbidden,
        text.stop_sequences,
        open_ids,
    )
