"""What may come when: every row of a batch goes through segments of its own.

A picture is one `CodeBlock`; a caption is one `TextUntil`; text that may open pictures wherever it
likes is one `Interleaved`. A region to redraw is a run of codes, then a `Forced` mask token, then
the next run; a gap in a text is filled in the same way. `Constraint` walks all rows through their
segments at once: per step it tells which ids are allowed, takes what was chosen, and knows who is
done.
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
    """Ids from `start` to `stop - 1` but `forbidden`, up to and including one of `stop_ids`."""

    start: int
    """First id allowed."""
    stop: int
    """First id behind those allowed."""
    stop_ids: tuple[int, ...]
    """Each ends the segment and is allowed; it is part of the output."""
    max_new_tokens: int
    """The segment ends here if no stop id has come."""
    forbidden: tuple[int, ...] = ()
    """Ids of the range that may not come, such as structural tokens; `stop_ids` still may."""
    stop_sequences: tuple[tuple[int, ...], ...] = ()
    """Runs of ids, each of which ends the segment too; part of the output."""

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
    """Text in which the model opens a picture when it wants to, and goes on with text after it."""

    text: TextUntil
    """A stretch of text; its stop ids, stop sequences and limit end the whole segment."""
    picture: CodeBlock
    """What comes after `open_id`."""
    open_id: int
    """Opens a picture, such as `<break>`; allowed in the text as long as pictures are left."""
    close_ids: tuple[int, ...] = ()
    """Forced after every picture, before the text goes on."""
    max_pictures: int
    """After so many pictures no other may be opened."""

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
    """These ids, one after the other, whatever the model thinks of them."""

    ids: tuple[int, ...]
    """The ids."""

    def __post_init__(self) -> None:
        """Refuse an empty segment."""
        if not self.ids or any(token < 0 for token in self.ids):
            raise ValueError(f"ids: wanted at least one id, each at least 0, got {self.ids}")


Segment = CodeBlock | TextUntil | Interleaved | Forced


def segments_per_row(
    constraint: Segment | Sequence[Segment] | Sequence[Sequence[Segment]], num_rows: int
) -> list[tuple[Segment, ...]]:
    """One tuple of segments per row, from one segment or one list for all, or a list per row."""
    if isinstance(constraint, Segment):
        return [(constraint,)] * num_rows
    if all(isinstance(part, Segment) for part in constraint):
        return [tuple(constraint)] * num_rows  # type: ignore[arg-type]
    if len(constraint) != num_rows:
        raise ValueError(f"constraint: wanted segments for {num_rows} rows, got {len(constraint)}")
    return [tuple(row) for row in constraint]  # type: ignore[arg-type]


def max_new_tokens(segments: Sequence[Segment]) -> int:
    """Largest number of ids that a row with these segments can produce."""
    return sum(phase.limit for phase, _ in _phases(segments))


class Constraint:
    """Where each of B rows stands in its segments; everything per step is a tensor operation.

    Segments become phases: a set of allowed ids, the ids that end the phase, and how many ids it
    lasts at most. A forced id is a phase with one allowed id. So a step is table look-ups:

        row 0 draws 2 codes, 9, 1 code:  phases  codes x2 | 9 | codes x1 | done
        after its second code it stands in phase 1, where only 9 is allowed

    From a text that may open a picture two ways lead on: to the next phase, which is the picture,
    or over all phases of the segment.
    """

    def __init__(
        self, rows: Sequence[Sequence[Segment]], vocab_size: int, device: torch.device | str = "cpu"
    ) -> None:
        """Lay out the phases' tables; every row stands at its first segment."""
        plans = [_phases(segments) for segments in rows]
        # Equal phases share a line of the tables; the last line is for rows that are done.
        phases = dict.fromkeys(phase for plan in plans for phase, _ in plan)
        lines = {phase: line for line, phase in enumerate(phases)}
        allowed = torch.zeros(len(lines) + 1, vocab_size, dtype=torch.bool)
        ends, opens = torch.zeros_like(allowed), torch.zeros_like(allowed)
        limits = torch.zeros(len(lines) + 1, dtype=torch.long)
        for phase, line in lines.items():
            phase.mark(allowed[line], ends[line], opens[line])
            limits[line] = phase.limit
        allowed[-1, 0] = True  # a row that is done has to be fed something

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
        """(B, V) mask of what may come next."""
        return self._allowed[self._line()]

    def finished(self) -> Tensor:
        """(B,) mask of the rows whose segments are all complete."""
        return self._line() == self._done

    def advance(self, input_ids: Tensor) -> None:
        """Take the ids (B,) that were chosen."""
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
        """(B,): the phase's last ids are one of its stop sequences."""
        self._recent = torch.cat([self._recent[:, 1:], input_ids[:, None]], 1)
        runs = self._runs[line]  # (B, runs, length)
        return ((runs == self._recent[:, None]) | (runs == _ANYTHING)).all(-1).any(-1)

    def _line(self) -> Tensor:
        return self._plan.gather(1, self._phase)[:, 0]  # (B,)


_ANYTHING, _NOTHING, _NEVER = -1, -2, -3
"""In place of an id: before a short stop sequence; before a phase began; where no sequence is."""


def _run_table(phases: Sequence[_Phase]) -> Tensor:
    """Stop sequences of every phase and of the end, (P, runs, length), right-aligned."""
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


def _phases(segments: Sequence[Segment]) -> list[tuple[_Phase, int]]:
    """Phases of a row, each with how many phases on it leads when it ends."""
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
                    rest = left * (1 + len(after)) + 1  # to behind the last stretch of text
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
