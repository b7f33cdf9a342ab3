"""The parts of a row's output: what a caller says about the ids to come.

A picture is one `CodeBlock`, a caption one `TextUntil`, and a text that may open pictures anywhere
one `Interleaved`. A region to redraw is a run of codes, then a `Forced` mask token, then the next
run; a gap in a text is filled in the same way. Ids may come as any whole numbers, in any sequence.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from cm3_decoding.whole_numbers import whole, whole_numbers


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
        _to_whole(self, "start", "stop", "length")
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
        _to_whole(self, "start", "stop", "max_new_tokens")
        _to_ids(self, "stop_ids", "forbidden")
        if not 0 <= self.start < self.stop:
            raise ValueError(
                f"start, stop: wanted 0 <= start < stop, got {self.start}, {self.stop}"
            )
        if self.max_new_tokens < 1:
            raise ValueError(f"max_new_tokens: wanted at least 1, got {self.max_new_tokens}")
        runs = self.stop_sequences
        if not isinstance(runs, Iterable) or any(not isinstance(run, Iterable) for run in runs):
            raise ValueError(f"stop_sequences: wanted runs of ids, got {runs!r}")
        runs = tuple(whole_numbers("stop_sequences", run) for run in runs)
        if () in runs:
            raise ValueError(f"stop_sequences: wanted runs of at least one id, got {runs}")
        object.__setattr__(self, "stop_sequences", runs)


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
    max_new_tokens: int | None = None
    """Length in ids, text and pictures together, at which the segment ends: no picture is opened
    that would not fit with an id of text behind it. This much of the context is reserved. None:
    `max_pictures` pictures and the most text around each, which are seldom all used."""

    def __post_init__(self) -> None:
        """Refuse other parts, an id that both opens a picture and ends the text, no pictures."""
        for name, kind in (("text", TextUntil), ("picture", CodeBlock)):
            if not isinstance(value := getattr(self, name), kind):
                raise ValueError(f"{name}: wanted a {kind.__name__}, got {value!r}")
        _to_whole(self, "open_id", "max_pictures")
        _to_ids(self, "close_ids")
        if self.open_id < 0 or self.open_id in self.text.stop_ids:
            raise ValueError(
                f"open_id: wanted an id of at least 0 that is no stop id, got {self.open_id}"
            )
        if self.max_pictures < 1:
            raise ValueError(f"max_pictures: wanted at least 1, got {self.max_pictures}")
        if self.max_new_tokens is not None:
            _to_whole(self, "max_new_tokens")
            if self.max_new_tokens <= self.picture_cost:
                raise ValueError(
                    f"max_new_tokens: wanted more than the {self.picture_cost} ids of a picture, "
                    f"got {self.max_new_tokens}"
                )

    @property
    def picture_cost(self) -> int:
        """Number of ids of a picture with those that open and close it."""
        return 1 + self.picture.length + len(self.close_ids)


@dataclass(frozen=True, kw_only=True)
class Forced:
    """These ids, one after the other, whatever their logits."""

    ids: tuple[int, ...]
    """The ids."""

    def __post_init__(self) -> None:
        """Refuse an empty segment."""
        _to_ids(self, "ids")
        if not self.ids:
            raise ValueError(f"ids: wanted at least one id, got {self.ids}")


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
    if not isinstance(constraint, Iterable):
        raise ValueError(f"constraint: wanted segments, got {constraint!r}")
    parts: list[Any] = list(constraint)
    if all(isinstance(part, ConstraintSegment) for part in parts):
        return [tuple(parts)] * num_rows
    if len(parts) != num_rows:
        raise ValueError(f"constraint: wanted segments for {num_rows} rows, got {len(parts)}")
    rows = [tuple(row) if isinstance(row, Iterable) else (row,) for row in parts]
    for part in (part for row in rows for part in row):
        if not isinstance(part, ConstraintSegment):
            raise ValueError(f"constraint: wanted segments, got {part!r}")
    return rows


def _to_whole(segment: ConstraintSegment, *names: str) -> None:
    """Replace fields by ints, or refuse them by name."""
    for name in names:
        object.__setattr__(segment, name, whole(name, getattr(segment, name)))


def _to_ids(segment: ConstraintSegment, *names: str) -> None:
    """Replace fields by tuples of ids, or refuse them by name."""
    for name in names:
        object.__setattr__(segment, name, whole_numbers(name, getattr(segment, name)))
