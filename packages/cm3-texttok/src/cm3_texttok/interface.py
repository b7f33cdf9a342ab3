"""What this package promises: the `Tokenizer` Protocol, its version, and the component's name.

A tokenizer turns text into ids and back, and owns the ids of the structural tokens of a document
(arXiv 2309.02591, section 2.1). Only str, int, lists of int and arrays cross the boundary.
"""

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import numpy as np

INTERFACE_VERSION = "1.0"
COMPONENT = "cm3-texttok"


@runtime_checkable
class Tokenizer(Protocol):
    """Text <-> ids, lossless, with structural ids that no text can produce."""

    @property
    def vocab_size(self) -> int:
        """Number of ids; every id lies in `[0, vocab_size)`."""
        ...

    @property
    def pad_id(self) -> int:
        """Fills a batch on the right; never part of a document."""
        ...

    @property
    def eos_id(self) -> int:
        """Opens and closes a document."""
        ...

    @property
    def break_id(self) -> int:
        """Stands at every change of modality."""
        ...

    @property
    def infill_id(self) -> int:
        """Stands before the spans that were cut out."""
        ...

    @property
    def mask_ids(self) -> tuple[int, ...]:
        """Stand where the first, second, ... span was cut out; at least one."""
        ...

    def encode(self, text: str) -> list[int]:
        """Text ids of a text, never a structural id; `[]` for the empty text.

        Raises:
            ValueError: The text holds a lone surrogate, which is no valid Unicode.
        """
        ...

    def encode_batch(self, texts: Sequence[str]) -> Sequence[np.ndarray]:
        """The same ids as `encode` gives, one 1-D integer array a text.

        uint16 where `vocab_size` allows it, else uint32. Any sequence of arrays will do; this
        package's own classes give a `Ragged`.
        """
        ...

    def decode(self, ids: Sequence[int]) -> str:
        """Text of the ids; structural ids are skipped. `decode(encode(text)) == text`.

        Raises:
            ValueError: An id lies outside `[0, vocab_size)`.
        """
        ...
