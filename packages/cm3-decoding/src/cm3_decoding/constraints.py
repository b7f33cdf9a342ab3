"""What may come when: every row of a batch goes through segments of its own.

A picture is one `CodeBlock`; a caption is one `TextUntil`; a region to redraw is a run of codes,
then a `Forced` mask token, then the next run. `Constraint` walks all rows through their segments
at once: per step it tells which ids are allowed, takes what was chosen, and knows who is done.
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


@dataclass(frozen=True, kw_only=True)
class Forced:
    """These ids, one after the other, whatever the model thinks of them."""

    ids: tuple[int, ...]
    """The ids."""

    def __post_init__(self) -> None:
        """Refuse an empty segment."""
        if not self.ids or any(token < 0 for token in self.ids):
            raise ValueError(f"ids: wanted at least one id, each at least 0, got {self.ids}")


Segment = CodeBlock | TextUntil | Forced


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
    return sum(phase.limit for phase in _phases(segments))


class Constraint:
    """Where each of B rows stands in its segments; everything per step is a tensor operation.

    Segments become phases: a set of allowed ids, the ids that end the phase, and how many ids it
    lasts at most. A forced id is a phase with one allowed id. So a step is table look-ups:

        row 0 draws 2 codes, 9, 1 code:  phases  codes x2 | 9 | codes x1 | done
        after its second code it stands in phase 1, where only 9 is allowed
    """

    def __init__(
        self, rows: Sequence[Sequence[Segment]], vocab_size: int, device: torch.device | str = "cpu"
    ) -> None:
        """Lay out the phases' tables; every row stands at its first segment."""
        phases = [_phases(segments) for segments in rows]
        # Equal phases share a line of the tables; the last line is for rows that are done.
        lines = {phase: line for line, phase in enumerate(dict.fromkeys(sum(phases, [])))}
        allowed = torch.zeros(len(lines) + 1, vocab_size, dtype=torch.bool)
        ends = torch.zeros_like(allowed)
        limits = torch.zeros(len(lines) + 1, dtype=torch.long)
        for phase, line in lines.items():
            phase.mark(allowed[line], ends[line])
            limits[line] = phase.limit
        allowed[-1, 0] = True  # a row that is done has to be fed something

        longest = max(map(len, phases), default=0) + 1
        plan = torch.full((len(rows), longest), len(lines))
        for row, row_phases in enumerate(phases):
            plan[row, : len(row_phases)] = torch.tensor([lines[phase] for phase in row_phases])
        self._allowed, self._ends = allowed.to(device), ends.to(device)  # (P, V)
        self._limits = limits.to(device)  # (P,)
        self._plan = plan.to(device)  # (B, phases of the longest row + 1)
        self._done = len(lines)
        self._phase = torch.zeros(len(rows), 1, dtype=torch.long, device=device)
        self._count = torch.zeros(len(rows), dtype=torch.long, device=device)

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
        over &= line != self._done
        self._count = self._count.masked_fill(over, 0)
        self._phase = self._phase + over[:, None]

    def _line(self) -> Tensor:
        return self._plan.gather(1, self._phase)[:, 0]  # (B,)


@dataclass(frozen=True)
class _Phase:
    start: int
    stop: int
    limit: int
    stop_ids: tuple[int, ...] = ()
    forbidden: tuple[int, ...] = ()

    def mark(self, allowed: Tensor, ends: Tensor) -> None:
        """Write the phase into its lines (V,) of the two tables."""
        largest = max(self.stop - 1, *self.stop_ids, *self.forbidden, 0)
        if largest >= len(allowed):
            raise ValueError(
                f"constraint: wanted ids below the model's {len(allowed)} logits, got {largest}"
            )
        allowed[self.start : self.stop] = True
        allowed[list(self.forbidden)] = False
        allowed[list(self.stop_ids)] = True
        ends[list(self.stop_ids)] = True
        if not allowed.any():
            raise ValueError("constraint: a segment allows nothing; `forbidden` covers its range")


def _phases(segments: Sequence[Segment]) -> list[_Phase]:
    phases = []
    for segment in segments:
        match segment:
            case CodeBlock(start=start, stop=stop, length=length):
                phases.append(_Phase(start, stop, length))
            case TextUntil():
                phases.append(
                    _Phase(
                        segment.start,
                        segment.stop,
                        segment.max_new_tokens,
                        segment.stop_ids,
                        segment.forbidden,
                    )
                )
            case Forced(ids=ids):
                phases += [_Phase(token, token + 1, 1) for token in ids]
    return phases
