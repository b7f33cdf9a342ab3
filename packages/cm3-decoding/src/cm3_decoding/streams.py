"""The streams of a batch: the prompts that a model reads for every row, each distinct one once.

B prompts per stream become one padded batch, and the model's logits are split by stream again.
Paper: CM3Leon (arXiv 2309.02591), sections 3.1.1 and 4.1.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from cm3_decoding.config import Stream


class Streams:
    """Prompts of every row and stream, laid out as one batch of N rows.

    Two streams of a row with equal prompts stay equal, because the same new ids follow both. So
    they are read once. If row 0 has the prompts [5, 6] and [5, 1], and row 1 has [7] and [7]:

        batch          [5, 6], [7, -], [5, 1]
        source         [0, 1, 0]     the row whose new ids each row of the batch is fed
        conditional    [0, 1]        the places of the rows' logits
        unconditional  [2, 1]

    Rows with equal prompts, such as candidates, are equal until their first new ids. For the
    prompts [5], [6] and [5] of three rows:

        distinct       [0, 1]        the rows of the batch to read
        copies         [0, 1, 0]     the one of them that each row of the batch continues
    """

    def __init__(self, prompts: Mapping[Stream, Sequence[Tensor]]) -> None:
        """Lay out B prompts (length,) per stream, the conditional one first.

        Raises:
            ValueError: A prompt does not have at least one id, or has a negative one.
        """
        unique: list[Tensor] = []
        source: list[int] = []
        seen: dict[tuple[int, tuple[int, ...]], int] = {}
        places: dict[Stream, Tensor] = {}
        numbers: dict[tuple[int, ...], int] = {}
        distinct: list[int] = []
        copies: list[int] = []
        for stream, rows in prompts.items():
            place = []
            for row, prompt in enumerate(rows):
                ids = _ids(prompt, row, stream)
                text = tuple(ids.tolist())
                key = row, text
                if key not in seen:
                    seen[key] = len(unique)
                    unique.append(ids)
                    source.append(row)
                    if text not in numbers:
                        numbers[text] = len(distinct)
                        distinct.append(seen[key])
                    copies.append(numbers[text])
                place.append(seen[key])
            places[stream] = torch.tensor(place)
        self.input_ids = torch.nn.utils.rnn.pad_sequence(unique, batch_first=True)
        """(N, longest) ids, right-padded with 0."""
        self.lengths = torch.tensor([len(ids) for ids in unique])
        """(N,) lengths."""
        self.distinct = torch.tensor(distinct)
        """(U,) rows of the batch with distinct prompts."""
        self.copies = torch.tensor(copies)
        """(N,) the place in `distinct` of each row's prompt."""
        self._source = torch.tensor(source)
        # Consecutive rows, the usual case, need no copy.
        self._places: dict[Stream, Tensor | slice] = {
            name: _run(place.tolist()) or place for name, place in places.items()
        }

    def to(self, device: torch.device | str) -> Streams:
        """Move everything to a device and return itself."""
        self.input_ids, self.lengths = self.input_ids.to(device), self.lengths.to(device)
        self._source = self._source.to(device)
        self.distinct, self.copies = self.distinct.to(device), self.copies.to(device)
        self._places = {
            name: place if isinstance(place, slice) else place.to(device)
            for name, place in self._places.items()
        }
        return self

    def keep_conditional(self) -> Tensor:
        """Drop all streams but the conditional one; return the rows (B,) of the batch to keep."""
        place = self._places["conditional"]
        rows = torch.arange(len(self.lengths), device=self.lengths.device)[place]
        self.input_ids, self.lengths = self.input_ids[rows], self.lengths[rows]
        self._source = self._source[rows]
        self._places = {"conditional": slice(0, len(rows))}
        return rows

    def feed(self, ids: Tensor) -> Tensor:
        """Spread the rows' new ids (B,) over the rows (N,) of the model's batch."""
        return ids[self._source]

    def split(self, logits: Tensor) -> dict[Stream, Tensor]:
        """Split the model's logits (N, V) into (B, V) per stream."""
        return {name: logits[place] for name, place in self._places.items()}


def _run(places: Sequence[int]) -> slice | None:
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
