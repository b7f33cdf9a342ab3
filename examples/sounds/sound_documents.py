"""Sounds and captions in one space of ids: documents to learn from, and prompts.

Sound codes are a block of their own beside the text ids, called "sound". A vocabulary also has a
block of image codes; here it has one code, which nothing uses.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from cm3_decoding import CodeBlock, TextUntil
from cm3_texttok import Document, DocumentLayout, TextTokenizer, Vocabulary
from sound_codes import SoundCodes

Pair = tuple[np.ndarray, np.ndarray]
"""Text ids and sound codes."""
CAPTION_LENGTH = 24
"""Most ids of a caption with its `<eos>`."""


class SoundDocuments:
    """Where texts, sounds and signs stand in a row of ids."""

    def __init__(self, text: TextTokenizer, codes: SoundCodes, frames: int) -> None:
        """Join the ids of a text tokenizer and of sounds of so many frames."""
        joined = Vocabulary.from_tokenizer(text, num_codes=1, codes_sha256=codes.sha256)
        self.vocabulary = joined.with_block("sound", codes.num_codes)
        self.block = self.vocabulary.block("sound")
        self.layout = DocumentLayout(self.vocabulary)
        self.sound = [
            CodeBlock(
                start=self.block.offset + start, stop=self.block.offset + start + size, length=1
            )
            for start, size in zip(codes.starts, codes.sizes, strict=True)
        ] * frames
        """The constraint of one sound: each place of a frame has codes of its own."""
        words = self.vocabulary
        every = np.arange(words.text_size)
        self.caption = TextUntil(
            start=0,
            stop=words.text_size,
            stop_ids=(words.eos_id,),
            max_new_tokens=CAPTION_LENGTH,
            forbidden=tuple(every[~words.is_text(every)].tolist()),
        )
        """The constraint of a caption."""

    def training(self, pairs: Sequence[Pair]) -> np.ndarray:
        """Return `<eos> T <break> S <break> T <break> S <eos>`, the query pair last."""
        return self.layout.interleaved(self._segments(pairs))

    def sound_prompt(self, text_ids: np.ndarray, context: Sequence[Pair] = ()) -> torch.Tensor:
        """Return `<eos> [T <break> S <break>]* T <break>`; a sound follows."""
        segments = [*self._segments(context), ("text", text_ids)]
        return torch.from_numpy(self.layout.interleaved_prompt(segments))

    def caption_prompt(self, codes: np.ndarray, context: Sequence[Pair] = ()) -> torch.Tensor:
        """Return `<eos> [T <break> S <break>]* <mask> <break> S <infill>`; its caption follows."""
        segments = (*self._segments(context), ("masked", [-1]), ("sound", codes))
        prompt = Document(segments=segments, spans=(("text", ()),), closed=False)
        return torch.from_numpy(self.layout.write(prompt))

    def _segments(self, pairs: Sequence[Pair]) -> list[tuple[str, np.ndarray]]:
        return [part for text, codes in pairs for part in (("text", text), ("sound", codes))]
