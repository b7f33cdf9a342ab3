"""The streams of a batch: which prompts a model reads for every row, each different one once.

Takes B prompts per stream, gives one padded batch, and finds every stream's logits in the model's
answer. Paper: 3.1.1 and 4.1 of CM3Leon (arXiv 2309.02591).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from cm3_decoding.sampling import Stream


class Streams:
    """Prompts of every row and stream, laid out as one batch of N rows.

    Two streams of a row that start alike stay alike, for the same new ids follow both. So they
    are read once. Row 0 has the prompts [5, 6] and [5, 1], row 1 has [7] and [7]:

        batch          [5, 6], [7, -], [5, 1]
        source         [0, 1, 0]     whose new ids each row of the batch is fed
        conditional    [0, 1]        where each row's logits stand
        unconditional  [2, 1]
    """

    def __init__(self, prompts: Mapping[Stream, Sequence[Tensor]]) -> None:
        """Lay out B prompts (length,) per stream, the conditional one first.

        Raises:
            ValueError: if a prompt is not at least one id.
        """
        unique: list[Tensor] = []
        source: list[int] = []
        seen: dict[tuple[int, tuple[int, ...]], int] = {}
        places: dict[Stream, Tensor] = {}
        for stream, rows in prompts.items():
            place = []
            for row, prompt in enumerate(rows):
                _check_prompt(prompt, row, stream)
                ids = prompt.long().cpu()
                key = row, tuple(ids.tolist())
                if key not in seen:
                    seen[key] = len(unique)
                    unique.append(ids)
                    source.append(row)
                place.append(seen[key])
            places[stream] = torch.tensor(place)
        self.input_ids = torch.nn.utils.rnn.pad_sequence(unique, batch_first=True)
        """(N, longest) ids, right-padded with 0."""
        self.lengths = torch.tensor([len(ids) for ids in unique])
        """(N,) lengths."""
        self._source = torch.tensor(source)
        self._places: dict[Stream, Tensor] = places

    def to(self, device: torch.device | str) -> Streams:
        """Move everything; gives itself."""
        self.input_ids, self.lengths = self.input_ids.to(device), self.lengths.to(device)
        self._source = self._source.to(device)
        self._places = {name: place.to(device) for name, place in self._places.items()}
        return self

    def feed(self, ids: Tensor) -> Tensor:
        """New ids (B,) of the rows as the model's batch wants them (N,)."""
        return ids[self._source]

    def split(self, logits: Tensor) -> dict[Stream, Tensor]:
        """Logits (B, V) of every stream, of the model's (N, V)."""
        if len(self._places) == 1:
            return {name: logits for name in self._places}
        return {name: logits[place] for name, place in self._places.items()}


def _check_prompt(prompt: Tensor, row: int, stream: Stream) -> None:
    if prompt.ndim != 1 or len(prompt) == 0 or prompt.is_floating_point():
        name = "prompts" if stream == "conditional" else stream
        raise ValueError(
            f"{name}: wanted at least one id (length,) in row {row}, "
            f"got {prompt.dtype} {tuple(prompt.shape)}"
        )
