"""Instructions as ids: a record in a template, and the prompts that ask for its output.

    <eos> segment <break> segment ... <eos>                        a whole instruction
    <eos> segment <break> ... <break>                              asks for the picture at the end
    <eos> Question: ... <mask>. <break> picture <infill>           asks for the text in the middle

Retrieved documents may stand before it, `<eos> [T <break> I <break>]*`, as before a pair.

A prompt of the last kind is the beginning of the whole instruction with the output cut out, as
CM3 trains it (arXiv 2309.02591, sections 2.2 and 4).
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import ArrayLike

from cm3_texttok.arrays import integer_array, require
from cm3_texttok.document import DocumentLayout
from cm3_texttok.interface import Tokenizer
from cm3_texttok.template import Piece, Template, asked
from cm3_texttok.vocabulary import Vocabulary

Value = str | ArrayLike
"""A text, or the codes of a picture."""
Pair = tuple[ArrayLike, ArrayLike]
"""Text ids and codes of a retrieved document."""
Span = tuple[int, int]
"""Places [start, stop) of a document."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Instruction:
    """A record in one template, whole, and where its parts lie."""

    ids: np.ndarray
    """int64 (L,), from `<eos>` to `<eos>`."""
    fields: Mapping[str, Span]
    """Where each field lies; the blank before a text counts to it."""
    output: Span
    """Where lies what is asked for: from the first output to the last."""
    text_inputs: tuple[Span, ...]
    """Where the texts lie that are given."""
    picture_inputs: tuple[Span, ...]
    """Where the pictures lie that are given."""
    start: int = 1
    """Where the instruction begins, behind the retrieved documents."""

    @property
    def output_is_last(self) -> bool:
        """Whether nothing but `<eos>` follows the output."""
        return self.output[1] == len(self.ids) - 1


class InstructionLayout:
    """Records in templates.

    Args:
        tokenizer: Of the words.
        vocabulary: Of the ids.
    """

    def __init__(self, tokenizer: Tokenizer, vocabulary: Vocabulary) -> None:
        """Keep the arguments."""
        self.vocabulary = vocabulary
        self._pairs = DocumentLayout(vocabulary)
        self._tokenizer = tokenizer
        self._said = lru_cache(maxsize=4096)(self._encode)  # the templates' own words

    def whole(
        self,
        template: Template,
        record: Mapping[str, Value],
        outputs: Sequence[str],
        context: Sequence[Pair] = (),
    ) -> Instruction:
        """Return a record as one document.

        Args:
            template: The words, and the order of the fields.
            record: Texts, and codes of pictures (any shape), by field; others are left alone.
            outputs: As of `Task`.
            context: Retrieved `(text_ids, codes)` pairs, the most useful last.

        Raises:
            KeyError: The record lacks a field.
            TypeError: A text is no str.
            ValueError: A text is no valid Unicode, or a picture has no codes or wrong ones.
        """
        parts = [self._pairs.opening(context)]
        fields: dict[str, Span] = {}
        start = place = len(parts[0])
        for number, segment in enumerate(template.segments):
            if number:
                parts.append(np.array([self.vocabulary.break_id]))
                place += 1
            for piece, words in _with_blanks(segment):
                ids = self._ids(piece, words, record)
                if piece.is_field:
                    fields[piece.value] = (place, place + len(ids))
                parts.append(ids)
                place += len(ids)
        end = np.array([self.vocabulary.eos_id])
        found = [fields[piece.value] for piece in asked(template, tuple(outputs))]

        def given(names: Sequence[str]) -> tuple[Span, ...]:
            return tuple(fields[name] for name in names if name not in outputs)

        return Instruction(
            ids=np.concatenate([*parts, end]),
            fields=fields,
            output=(found[0][0], found[-1][1]),
            text_inputs=given(template.texts),
            picture_inputs=given(template.pictures),
            start=start,
        )

    def prompt(
        self,
        template: Template,
        record: Mapping[str, Value],
        outputs: Sequence[str],
        *,
        masked: Collection[str] = (),
        context: Sequence[Pair] = (),
    ) -> np.ndarray:
        """Return the ids (int64) that the output follows.

        Args:
            template: As of `whole`.
            record: The fields that are given; outputs in it are not looked at.
            outputs: As of `Task`.
            masked: Names of given fields that a mask stands in for: guidance's other streams.
            context: As of `whole`.

        Raises:
            KeyError: The record lacks a field that is not masked.
            ValueError: As of `whole`; a name in `masked` is no given field; or a given field is
                masked before an output in the middle, which would then not be the first to follow.
        """
        given = {piece.value for piece in template.pieces if piece.is_field} - set(outputs)
        if unknown := set(masked) - given:
            raise ValueError(f"masked: wanted some of {sorted(given)}, got {sorted(unknown)}")
        filled = dict(record)
        for piece in template.pieces:
            if piece.is_field and (piece.value in masked or piece.value in outputs):
                filled[piece.value] = "x" if piece.kind == "text" else [0]  # stands in, is cut out
        one = self.whole(template, filled, outputs, context)
        spans = sorted(one.fields[name] for name in masked)
        if one.output_is_last:
            return self._cut(one.ids[: one.output[0]], spans)
        if spans and spans[0] < one.output:
            raise ValueError(
                f"masked: wanted no field before the output {tuple(outputs)}, got {sorted(masked)}"
            )
        body = self._cut(one.ids[:-1], [one.output, *spans])
        return np.append(body, self.vocabulary.infill_id)

    def _cut(self, ids: np.ndarray, spans: Sequence[Span]) -> np.ndarray:
        """Put a mask in place of each span; spans that touch share one."""
        keep, ids = np.ones(len(ids), bool), ids.copy()
        runs: list[Span] = []
        for start, stop in spans:
            if runs and runs[-1][1] == start:
                start = runs.pop()[0]
            runs.append((start, stop))
        masks = self.vocabulary.mask_ids
        if len(runs) > len(masks):
            raise ValueError(f"masked: wanted at most {len(masks)} masks, got {len(runs)}")
        for mask, (start, stop) in zip(masks, runs, strict=False):
            ids[start], keep[start + 1 : stop] = mask, False
        return ids[keep]

    def _ids(self, piece: Piece, words: str, record: Mapping[str, Value]) -> np.ndarray:
        if piece.kind == "literal":
            return self._said(words)
        value = record[piece.value]
        if piece.kind == "text":
            if not isinstance(value, str):
                raise TypeError(f"{piece.value}: wanted a str, got {type(value).__name__}")
            return self._encode(words + value)
        codes = integer_array(value, piece.value).reshape(-1)  # (h, w) -> (h * w,)
        if codes.size == 0:
            raise ValueError(f"{piece.value}: wanted the codes of an image, got none")
        return self.vocabulary.image.codes_to_ids(codes, piece.value)

    def _encode(self, words: str) -> np.ndarray:
        ids = np.array(self._tokenizer.encode(words), np.int64)
        require(self.vocabulary.is_text(ids), ids, "text", "a text id that is not structural")
        return ids


@lru_cache(maxsize=1024)
def _with_blanks(segment: tuple[Piece, ...]) -> tuple[tuple[Piece, str], ...]:
    """Pair each piece with the words of a literal, or the blank that goes before a text.

    "Answer: " and {answer} are encoded as "Answer:" and " blue", for so tokenizers cut a text.
    """
    pairs: list[tuple[Piece, str]] = []
    for place, piece in enumerate(segment):
        following = segment[place + 1 : place + 2]
        before = segment[place - 1] if place else None
        words = ""
        if piece.kind == "literal":
            gives = following and following[0].kind == "text" and piece.value.endswith(" ")
            words = piece.value[:-1] if gives else piece.value
            if not words:
                continue
        elif before is not None and before.kind == "literal" and before.value.endswith(" "):
            words = " "
        pairs.append((piece, words))
    return tuple(pairs)
