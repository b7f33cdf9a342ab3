"""Layouts of documents, for training and for prompts.

From text ids and image codes to one int64 array of joint ids. A pair is `caption <break> image`; a
document is `<eos> T <break> I <break> T <break> I <eos>`, the retrieved pairs first and the query
pair last (arXiv 2309.02591, section 2.1). Prompts are prefixes of training documents (section
2.2): a document with spans cut out becomes
`<eos> body-with-masks <infill> s0 <mask:1> s1 <mask:2> s2 ... <eos>`. An interleaved document has
texts and codes in any order, with `<break>` between them. `reading.py` has the way back.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from cm3_texttok.arrays import integer_array, require
from cm3_texttok.reading import Document, Segment, read_document, write_document
from cm3_texttok.vocabulary import Vocabulary


class DocumentLayout:
    """The places of text, image and structure in a document.

    In all methods `text_ids` are the tokenizer's ids of a caption, `codes` the codes of one image
    (a grid, or flattened row by row), and `context` the retrieved `(text_ids, codes)` pairs, the
    most useful last. Structural text ids, codes outside the codebook and images without codes
    raise a ValueError.
    """

    def __init__(self, vocabulary: Vocabulary) -> None:
        """Lay documents out in the ids of `vocabulary`."""
        self.vocabulary = vocabulary

    def training(self, pairs: Sequence[tuple[ArrayLike, ArrayLike]]) -> np.ndarray:
        """Return `<eos> T <break> I <break> T <break> I <eos>`, for one pair or more."""
        if len(pairs) == 0:
            raise ValueError("pairs: wanted at least one (text_ids, codes) pair, got none")
        ids = self._join(self._opening(pairs, "pairs"))
        ids[-1] = self.vocabulary.eos_id  # the document ends where the next pair would begin
        return ids

    def interleaved(self, segments: Sequence[Segment]) -> np.ndarray:
        """Return `<eos> S <break> S <break> ... S <eos>`: texts and codes in any order.

        Args:
            segments: `("text", ids)`, `("image", codes)`, or the name of another block of the
                vocabulary and its codes; at least one.
        """
        return self.write(Document(segments=tuple(segments), closed=True))

    def interleaved_prompt(self, segments: Sequence[Segment]) -> np.ndarray:
        """Return `<eos> [S <break>]*`; a segment of the caller's choice follows."""
        return self.write(Document(segments=(*segments, ("text", ())), closed=False))

    def text_dropped(
        self, codes: ArrayLike, context: Sequence[tuple[ArrayLike, ArrayLike]] = ()
    ) -> np.ndarray:
        """Return `<eos> [T <break> I <break>]* <mask> <break> I <eos>`, for training.

        It teaches guidance's other stream: the image after `unconditional_prompt` (section 3.2).
        """
        prompt = self.unconditional_prompt(context)
        return self._join([prompt, self._image(codes, "codes"), self.vocabulary.eos_id])

    def masked(self, ids: ArrayLike, masked: ArrayLike) -> np.ndarray:
        """Cut parts out: `<eos> body-with-masks <infill> s0 <mask:1> s1 ... <eos>`.

        With the whole caption cut out it trains captioning, otherwise infilling.

        Args:
            ids: A document of `training` or `interleaved`.
            masked: Booleans over `ids`. Every longest run becomes one mask token.

        Raises:
            ValueError: `ids` is not a whole document, a structural id is masked, nothing is
                masked, or there are more runs than mask tokens.
        """
        array = integer_array(ids, "ids")
        document = self.read(array)
        if not document.closed or document.num_masks:
            raise ValueError("ids: wanted a whole document without masks, got another")
        flags, starts, stops = self._runs(masked)
        if flags.size != array.size:
            raise ValueError(f"masked: wanted {array.size} flags, one an id, got {flags.size}")
        structure = np.isin(array, (self.vocabulary.eos_id, self.vocabulary.break_id))
        require(~(flags & structure), array, "masked", "flags at texts and codes alone")
        body = self._cut(array, flags, starts)[:-1]  # without <eos>
        masks = self.vocabulary.mask_ids
        spans = [array[start:stop] for start, stop in zip(starts, stops, strict=True)]
        tail = [part for n, span in enumerate(spans) for part in (masks[n], span)][1:]
        return self._join([body, self.vocabulary.infill_id, *tail, self.vocabulary.eos_id])

    def opening(self, context: Sequence[tuple[ArrayLike, ArrayLike]] = ()) -> np.ndarray:
        """Return `<eos> [T <break> I <break>]*`: retrieved pairs, before anything."""
        return self._join(self._opening(context))

    def image_prompt(
        self, text_ids: ArrayLike, context: Sequence[tuple[ArrayLike, ArrayLike]] = ()
    ) -> np.ndarray:
        """Return `<eos> [T <break> I <break>]* T <break>`; an image follows."""
        text = self._text(text_ids, "text_ids")
        return self._join([*self._opening(context), text, self.vocabulary.break_id])

    def unconditional_prompt(
        self, context: Sequence[tuple[ArrayLike, ArrayLike]] = ()
    ) -> np.ndarray:
        """Return `<eos> [T <break> I <break>]* <mask> <break>`; an uncaptioned image follows."""
        vocabulary = self.vocabulary
        return self._join([*self._opening(context), vocabulary.mask_ids[0], vocabulary.break_id])

    def caption_prompt(
        self, codes: ArrayLike, context: Sequence[tuple[ArrayLike, ArrayLike]] = ()
    ) -> np.ndarray:
        """Return `<eos> [T <break> I <break>]* <mask> <break> I <infill>`; the caption follows."""
        prompt = self.unconditional_prompt(context)
        return self._join([prompt, self._image(codes, "codes"), self.vocabulary.infill_id])

    def infill_prompt(
        self,
        text_ids: ArrayLike,
        codes: ArrayLike,
        masked: ArrayLike,
        context: Sequence[tuple[ArrayLike, ArrayLike]] = (),
    ) -> np.ndarray:
        """Return `<eos> [T <break> I <break>]* T <break> I-with-masks <infill>`; the codes follow.

        Args:
            text_ids: The caption.
            codes: The image; masked positions are not looked at.
            masked: Booleans over `codes`. Every longest run of masked codes, in flattened order,
                becomes one mask token: `<mask>`, `<mask:1>`, ...
            context: The retrieved pairs.

        Raises:
            ValueError: Nothing is masked, there are more runs than mask tokens, or `masked` and
                `codes` differ in size.
        """
        flags, starts, _ = self._runs(masked)
        flat = integer_array(codes, "codes").reshape(-1)
        if flat.size != flags.size:
            raise ValueError(f"masked: wanted {flat.size} flags, one a code, got {flags.size}")
        # codes 7 8 9 5 3, masked 0 1 1 0 1 -> 7 <mask> . 5 <mask:1> -> 7 <mask> 5 <mask:1>
        image = self._cut(self.vocabulary.codes_to_ids(np.where(flags, 0, flat)), flags, starts)
        return self._join([self.image_prompt(text_ids, context), image, self.vocabulary.infill_id])

    def text_infill_prompt(
        self,
        text_ids: ArrayLike,
        masked: ArrayLike,
        codes: ArrayLike,
        context: Sequence[tuple[ArrayLike, ArrayLike]] = (),
    ) -> np.ndarray:
        """Return `<eos> [T <break> I <break>]* T-with-masks <break> I <infill>`; the words follow.

        Args:
            text_ids: The caption; masked positions must be text, no matter which.
            masked: Booleans over `text_ids`, as in `infill_prompt`.
            codes: The image.
            context: The retrieved pairs.

        Raises:
            ValueError: As in `infill_prompt`.
        """
        flags, starts, _ = self._runs(masked)
        text = self._text(text_ids, "text_ids")
        if text.size != flags.size:
            raise ValueError(f"masked: wanted {text.size} flags, one an id, got {flags.size}")
        image, vocabulary = self._image(codes, "codes"), self.vocabulary
        parts = [self._cut(text, flags, starts), vocabulary.break_id, image, vocabulary.infill_id]
        return self._join([*self._opening(context), *parts])

    def infill_continuations(self, masked: ArrayLike) -> list[tuple[int | None, int]]:
        """Return the runs to write after an infill prompt: `(mask id before the run, run length)`.

        The first run follows `<infill>` directly, so its mask id is None; every later run follows
        its own mask token; `<eos>` ends everything.
        """
        _, starts, stops = self._runs(masked)
        masks = (None, *self.vocabulary.mask_ids[1:])
        return list(zip(masks, (stops - starts).tolist(), strict=False))

    def read(self, ids: ArrayLike) -> Document:
        """Read a document or prompt in any layout of this class; see `read_document`."""
        return read_document(self.vocabulary, ids)

    def write(self, document: Document) -> np.ndarray:
        """Return the ids of `document`, undoing `read`; see `write_document`."""
        return write_document(self.vocabulary, document)

    def _opening(
        self, pairs: Sequence[tuple[ArrayLike, ArrayLike]], name: str = "context"
    ) -> list[ArrayLike]:
        """Return the parts of `<eos> [T <break> I <break>]*`."""
        parts: list[ArrayLike] = [self.vocabulary.eos_id]
        for n, (text_ids, codes) in enumerate(pairs):
            parts += [self._text(text_ids, f"{name}[{n}]: text_ids"), self.vocabulary.break_id]
            parts += [self._image(codes, f"{name}[{n}]: codes"), self.vocabulary.break_id]
        return parts

    def _text(self, text_ids: ArrayLike, name: str) -> np.ndarray:
        array = integer_array(text_ids, name)
        if array.ndim != 1:
            raise ValueError(f"{name}: wanted a row of ids, got the shape {array.shape}")
        wanted = "a text id that is not structural"
        require(self.vocabulary.is_text(array), array, name, wanted)
        return array

    def _image(self, codes: ArrayLike, name: str) -> np.ndarray:
        array = integer_array(codes, name)
        if array.size == 0:
            raise ValueError(f"{name}: wanted the codes of an image, got none")
        return self.vocabulary.image.codes_to_ids(array, name).reshape(-1)  # (h, w) -> (h * w,)

    def _join(self, parts: Sequence[ArrayLike]) -> np.ndarray:
        return np.concatenate([np.atleast_1d(part) for part in parts]).astype(np.int64)

    def _cut(self, ids: np.ndarray, flags: np.ndarray, starts: np.ndarray) -> np.ndarray:
        """Return the remaining ids, with a mask token in place of each run."""
        row, keep = ids.copy(), ~flags
        row[starts] = self.vocabulary.mask_ids[: starts.size]
        keep[starts] = True
        return row[keep]

    def _runs(self, masked: ArrayLike) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return the flattened flags, and where each run of True starts and stops."""
        flags = np.asarray(masked)
        if flags.dtype != np.bool_:
            raise TypeError(f"masked: wanted booleans, got an array of {flags.dtype}")
        flags = flags.reshape(-1)
        # 0 1 1 0 1, padded 0 0 1 1 0 1 0, changes at 1 3 4 5 -> starts 1 4, stops 3 5
        changes = np.flatnonzero(np.diff(np.pad(flags, 1).astype(np.int8)))
        starts, stops = changes[::2], changes[1::2]
        most = len(self.vocabulary.mask_ids)
        if not 1 <= starts.size <= most:
            wanted = f"1 to {most} runs of masked codes, one a mask token"
            raise ValueError(f"masked: wanted {wanted}, got {starts.size}")
        return flags, starts, stops
