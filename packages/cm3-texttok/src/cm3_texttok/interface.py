"""The interface of a text tokenizer, its version, and the component names in saved files.

A tokenizer turns text into ids and back, and owns the ids of the structural tokens of a document
(arXiv 2309.02591, section 2.1). Only str, int, lists of int and arrays cross the boundary.
"""

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import numpy as np

INTERFACE_VERSION = "1.0"
"""Version of `Tokenizer` and of this package's files; the major part must match on load."""

TOKENIZER_COMPONENT = "cm3-texttok/tokenizer"
"""Component name of a saved `TextTokenizer`."""

VOCABULARY_COMPONENT = "cm3-texttok/vocabulary"
"""Component name in the JSON of a `Vocabulary`."""


@runtime_checkable
class Tokenizer(Protocol):
    """Text to ids and back without loss; no text can produce a structural id.

    It may also have `sha256`, a str that tells it from other tokenizers of its size,
    `silent_ranges`, a tuple of ranges (start, stop) of the ids that no text has, and
    `image_offset`, the id of image code 0 where it leaves room for the codes;
    `Vocabulary.from_tokenizer` asks for all three.
    """

    @property
    def vocab_size(self) -> int:
        """Number of ids; every id lies in `[0, vocab_size)`."""
        ...

    @property
    def pad_id(self) -> int:
        """The id that fills a batch on the right; never part of a document."""
        ...

    @property
    def eos_id(self) -> int:
        """The id that opens and closes a document."""
        ...

    @property
    def break_id(self) -> int:
        """The id at every change of modality."""
        ...

    @property
    def infill_id(self) -> int:
        """The id before the spans that were cut out."""
        ...

    @property
    def mask_ids(self) -> tuple[int, ...]:
        """The ids in place of the first, second, ... span that was cut out; at least one."""
        ...

    def encode(self, text: str) -> list[int]:
        """Return the ids of a text, never a structural one; `[]` for the empty text.

        Raises:
            ValueError: The text holds a lone surrogate, which is not valid Unicode.
        """
        ...

    def encode_batch(self, texts: Sequence[str]) -> Sequence[np.ndarray]:
        """Return the ids of each text, as of `encode`, in a 1-D array.

        The arrays are uint16 where `vocab_size` allows it, else uint32. Any sequence of arrays
        will do; this package's own classes return a `Ragged`.
        """
        ...

    def decode(self, ids: Sequence[int]) -> str:
        """Return the text of the ids, skipping structural ones: `decode(encode(text)) == text`.

        Raises:
            ValueError: An id lies outside `[0, vocab_size)`.
        """
        ...
