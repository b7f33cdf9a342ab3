"""The streams of a batch: the prompts that a model reads for every row, each distinct one once.

All streams of all rows form one batch of the model, whose logits are split by stream again. Paper:
CM3Leon (arXiv 2309.02591), sections 3.1.1 and 4.1.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from cm3_decoding.config import Stream


@dataclass(frozen=True, kw_only=True)
class Reading:
    """The prompts of a model's batch of N rows, right-padded.

    Rows with equal prompts, such as candidates, are equal until their first new ids. For the
    prompts [5], [6] and [5] of three rows:

        distinct       [0, 1]        the rows of the batch to read
        copies         [0, 1, 0]     the one of them that each row of the batch continues
    """

    input_ids: Tensor
    """(N, longest) ids, right-padded with 0."""
    lengths: Tensor
    """(N,) lengths."""
    distinct: Tensor
    """(U,) rows of the batch with distinct prompts."""
    copies: Tensor
    """(N,) the place in `distinct` of each row's prompt."""

    def to(self, device: torch.device | str) -> Reading:
        """Return the same on a device."""
        return Reading(**{name: part.to(device) for name, part in vars(self).items()})


class Streams:
    """Where the streams of B rows lie in a model's batch of N rows.

    Two streams of a row with equal prompts stay equal, because the same new ids follow both. So
    they are read once. If row 0 has the prompts [5, 6] and [5, 1], and row 1 has [7] and [7]:

        batch          [5, 6], [7, -], [5, 1]
        source         [0, 1, 0]     the row whose new ids each row of the batch is fed
        conditional    [0, 1]        the places of the rows' logits
        unconditional  [2, 1]
    """

    def __init__(self, places: Sequence[Mapping[Stream, int]], device: torch.device | str) -> None:
        """Take the place in the batch of each row's streams."""
        self._places, self._device = [dict(row) for row in places], device
        source = {place: row for row, own in enumerate(places) for place in own.values()}
        self.size = len(source)
        """N, the rows of the model's batch."""
        self._source = torch.tensor([source[place] for place in range(self.size)], device=device)

    def feed(self, ids: Tensor) -> Tensor:
        """Spread the rows' new ids (B,) over the rows (N,) of the model's batch."""
        return ids[self._source]

    def places(self, stream: Stream, rows: Sequence[int]) -> Tensor | slice:
        """Return the places in the batch of a stream of some rows."""
        found = [self._places[row][stream] for row in rows]
        # Consecutive rows, the usual case, need no copy.
        return run(found) or torch.tensor(found, device=self._device)

    def select(self, rows: Sequence[int], bare: Collection[int] = ()) -> tuple[Streams, list[int]]:
        """Return the streams of some rows alone, and the row of the old batch for each new one.

        As many rows of the batch as can stay where they are; the last ones fill the gaps.

        Args:
            rows: Old row `rows[i]` is the new row i.
            bare: Those of them that keep the conditional stream alone.
        """
        kept: list[dict[Stream, int]] = [
            {
                stream: place
                for stream, place in self._places[row].items()
                if stream == "conditional" or row not in bare
            }
            for row in rows
        ]
        used = sorted({place for row in kept for place in row.values()})
        behind = [place for place in used if place >= len(used)]
        gaps = sorted(set(range(len(used))) - set(used))
        moved = dict(zip(behind, gaps, strict=True))
        order = list(range(len(used)))
        for old, new in moved.items():
            order[new] = old
        placed: list[dict[Stream, int]] = [
            {name: moved.get(place, place) for name, place in row.items()} for row in kept
        ]
        return Streams(placed, self._device), order

    def join(self, other: Streams) -> Streams:
        """Return both one's rows and those of another, whose batch comes behind."""
        behind: list[dict[Stream, int]] = [
            {stream: self.size + place for stream, place in row.items()} for row in other._places
        ]
        return Streams([*self._places, *behind], self._device)


def lay_out(
    prompts: Sequence[Mapping[Stream, Tensor]], device: torch.device | str = "cpu"
) -> tuple[Reading, Streams]:
    """Lay out the prompts (length,) of B rows by stream as one batch.

    Raises:
        ValueError: A prompt does not have at least one id, or has a negative one.
    """
    unique: list[Tensor] = []
    seen: dict[tuple[int, tuple[int, ...]], int] = {}
    places: list[dict[Stream, int]] = [{} for _ in prompts]
    numbers: dict[tuple[int, ...], int] = {}
    distinct: list[int] = []
    copies: list[int] = []
    streams: dict[Stream, None] = {name: None for row in prompts for name in row}
    for stream in streams:
        for row, own in enumerate(prompts):
            if stream not in own:
                continue
            ids = _ids(own[stream], row, stream)
            text = tuple(ids.tolist())
            key = row, text
            if key not in seen:
                seen[key] = len(unique)
                unique.append(ids)
                if text not in numbers:
                    numbers[text] = len(distinct)
                    distinct.append(seen[key])
                copies.append(numbers[text])
            places[row][stream] = seen[key]
    reading = Reading(
        input_ids=torch.nn.utils.rnn.pad_sequence(unique, batch_first=True),
        lengths=torch.tensor([len(ids) for ids in unique]),
        distinct=torch.tensor(distinct),
        copies=torch.tensor(copies),
    )
    return reading.to(device), Streams(places, device)


def run(places: Sequence[int]) -> slice | None:
    """Return the slice equal to `places`, if there is one."""
    if not places or list(places) != list(range(places[0], places[0] + len(places))):
        return None
    return slice(places[0], places[0] + len(places))


def _ids(prompt: Tensor | Sequence[int], row: int, stream: Stream) -> Tensor:
    """Return a prompt, a tensor or any sequence of whole numbers, as ids (length,) on the CPU."""
    name = "prompts" if stream == "conditional" else stream
    try:
        ids = torch.as_tensor(prompt)
    except (TypeError, ValueError, RuntimeError) as error:
        raise ValueError(f"{name}: wanted ids (length,) in row {row}, got {prompt!r}") from error
    kinds = (torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64)
    if ids.ndim != 1 or len(ids) == 0 or ids.dtype not in kinds:
        raise ValueError(
            f"{name}: wanted at least one id (length,) in row {row}, "
            f"got {ids.dtype} {tuple(ids.shape)}"
        )
    ids = ids.long().cpu()
    if int(ids.min()) < 0:
        raise ValueError(f"{name}: wanted ids of at least 0 in row {row}, got {int(ids.min())}")
    return ids
