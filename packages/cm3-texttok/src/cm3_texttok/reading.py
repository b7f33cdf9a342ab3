"""Documents in any layout of `DocumentLayout` back to their parts.

`read_document` turns joint ids into a `Document`; `write_document` undoes it. One grammar covers
training documents and prompts, retrieved context, dropped texts, captioning, infilling and
interleaved documents (arXiv 2309.02591, sections 2.1 and 2.2):

    <eos> segment [<break> segment]* [<infill> span [<mask:n> span]*] [<eos>]

A segment is a text, or codes of one block, with mask tokens where spans were cut out. A prompt
lacks the last `<eos>`.
"""

from dataclasses import dataclass
from typing import NoReturn

import numpy as np
from numpy.typing import ArrayLike

from cm3_texttok.arrays import integer_array, require
from cm3_texttok.vocabulary import Vocabulary

Segment = tuple[str, ArrayLike]
"""Kind and values of a part of a document: `("text", ids)`, or a block's name and codes.

In a document with masks, value `-1 - n` marks the place of span n. The kind is `"masked"` where
only mask tokens are left and no spans say what they were. Chameleon has `("end_of_turn", [])` too.
"""


@dataclass(frozen=True, kw_only=True, eq=False)
class Document:
    """The parts of a row of ids."""

    segments: tuple[Segment, ...]
    """The segments between the breaks, in order; an empty text last in a prompt that ends in
    `<break>`."""
    spans: tuple[Segment, ...] | None = None
    """The spans that were cut out, in order, as far as present; None if there is no `<infill>`."""
    closed: bool
    """Whether `<eos>` ends the document; a prompt is open."""

    @property
    def num_masks(self) -> int:
        """Number of spans that were cut out of the segments."""
        return sum(int((np.asarray(values) < 0).sum()) for _, values in self.segments)

    def restore(self) -> list[tuple[str, np.ndarray]]:
        """Return the segments with every span put back, without masks.

        Raises:
            ValueError: A span is missing.
        """
        spans = self.spans or ()
        if len(spans) < self.num_masks:
            raise ValueError(f"spans: wanted {self.num_masks}, one a mask, got {len(spans)}")
        restored = []
        for kind, values in self.segments:
            array = np.asarray(values, np.int64)
            places = np.flatnonzero(array < 0)
            # 7 -1 5, span 0 = 8 9 -> pieces 7, -1 5 -> 7, 8 9, 5
            first, *rest = np.split(array, places)
            parts = [first]
            for piece in rest:
                parts += [np.asarray(spans[-1 - int(piece[0])][1], np.int64), piece[1:]]
            restored.append((kind, np.concatenate(parts)))
        return restored


def read_document(vocabulary: Vocabulary, ids: ArrayLike) -> Document:
    """Read the parts of `ids`, a row in any layout of `DocumentLayout`.

    Raises:
        ValueError: The ids follow another grammar; the message names the position and what was
            wanted there.
    """
    array = integer_array(ids, "ids")
    if array.ndim != 1 or array.size == 0:
        raise ValueError(f"ids: wanted a row that begins with <eos>, got the shape {array.shape}")
    if array[0] != vocabulary.eos_id:
        _fail(array, 0, f"<eos> ({vocabulary.eos_id})")
    closed = array.size > 1 and bool(array[-1] == vocabulary.eos_id)
    stop = array.size - closed
    reader = _Reader(vocabulary, array)
    infills = np.flatnonzero(array[:stop] == vocabulary.infill_id)
    body_stop = int(infills[0]) if infills.size else stop

    edges = np.flatnonzero(array[:body_stop] == vocabulary.break_id).tolist()
    starts, stops = [1, *(edge + 1 for edge in edges)], [*edges, body_stop]
    segments = [reader.segment(start, end) for start, end in zip(starts, stops, strict=True)]
    spans = None
    if infills.size:
        spans = reader.spans(body_stop, stop, closed)
        segments = [
            (kind, values) for kind, (_, values) in zip(reader.segment_kinds, segments, strict=True)
        ]
    return Document(
        segments=tuple(segments), spans=None if spans is None else tuple(spans), closed=closed
    )


def write_document(vocabulary: Vocabulary, document: Document) -> np.ndarray:
    """Return the ids (int64) of `document`, undoing `read_document`.

    Raises:
        ValueError: A value does not belong to its kind, or the ids follow no layout: masks out of
            order, spans that do not fit them, a segment of codes without codes.
    """
    if not document.segments:
        raise ValueError("segments: wanted at least one, got none")
    parts = []
    for n, (kind, values) in enumerate(document.segments):
        name = f"segments[{n}]"
        ids = _segment_ids(vocabulary, kind, values, name)
        if ids.size == 0 and kind != "text":
            raise ValueError(f"{name}: wanted at least one {kind} code, got none")
        parts += [[vocabulary.break_id], ids]
    parts[0] = [vocabulary.eos_id]
    for n, (kind, values) in enumerate(document.spans or ()):
        parts.append([vocabulary.infill_id if n == 0 else vocabulary.mask_ids[n]])
        parts.append(_segment_ids(vocabulary, kind, values, f"spans[{n}]"))
    parts.append([vocabulary.eos_id] if document.closed else [])
    ids = np.concatenate(parts).astype(np.int64)
    read_document(vocabulary, ids)  # says where if the parts do not fit one another
    return ids


class _Reader:
    """One row, with the kind and mask number of every id looked up once."""

    def __init__(self, vocabulary: Vocabulary, array: np.ndarray) -> None:
        self.vocabulary, self.array = vocabulary, array
        self.names = ["text", *(block.name for block in vocabulary.blocks)]
        self.offsets = [0, *(block.offset for block in vocabulary.blocks)]
        self.kinds = np.where(vocabulary.is_text(array), 0, -1)  # (T,) index into names
        for n, block in enumerate(vocabulary.blocks, 1):
            self.kinds[block.contains(array)] = n
        self.masks = np.full(array.size, -1)  # (T,) number of the mask token, -1 for other ids
        for n, mask_id in enumerate(vocabulary.mask_ids):
            self.masks[array == mask_id] = n
        self.segment_kinds: list[str] = []
        self.mask_segments: list[int] = []  # the segment of each mask of the body

    def segment(self, start: int, stop: int) -> tuple[str, np.ndarray]:
        """Read the segment `[start, stop)` of the body."""
        masks = self.masks[start:stop]
        for place in np.flatnonzero(masks >= 0).tolist():
            if masks[place] != (wanted := len(self.mask_segments)):
                _fail(self.array, start + place, f"the mask token {wanted}")
            self.mask_segments.append(len(self.segment_kinds))
        kind, values = self._run(start, stop, masks >= 0)
        values[masks >= 0] = -1 - masks[masks >= 0]
        self.segment_kinds.append(kind)
        return kind, values

    def spans(self, infill: int, stop: int, closed: bool) -> list[tuple[str, np.ndarray]]:
        """Read the spans after the `<infill>` at that position."""
        most = len(self.mask_segments)
        if most == 0:
            _fail(self.array, infill, "no <infill>, for nothing is cut out")
        edges = infill + 1 + np.flatnonzero(self.masks[infill + 1 : stop] >= 0)
        for n, edge in enumerate(edges.tolist(), 1):
            if n == most or self.masks[edge] != n:
                _fail(self.array, edge, f"the mask token {n}" if n < most else "<eos>")
        if closed and edges.size + 1 < most:
            _fail(self.array, stop, f"the mask token {edges.size + 1} and its span")
        spans = []
        starts, stops = [infill, *edges.tolist()], [*edges.tolist(), stop]
        for n, (start, end) in enumerate(zip(starts, stops, strict=True)):
            kind, values = self._run(start + 1, end, np.zeros(end - start - 1, bool))
            of_segment = self.segment_kinds[self.mask_segments[n]]
            if values.size == 0:
                kind = "text" if of_segment == "masked" else of_segment
            elif of_segment == "masked":
                self.segment_kinds[self.mask_segments[n]] = kind
            elif of_segment != kind:
                _fail(self.array, start + 1, f"an id of {of_segment}, as in its segment")
            spans.append((kind, values))
        if closed:  # the spans of what is still unknown were empty
            self.segment_kinds = ["text" if k == "masked" else k for k in self.segment_kinds]
        return spans

    def _run(self, start: int, stop: int, skip: np.ndarray) -> tuple[str, np.ndarray]:
        """Return kind and values of `[start, stop)`, ignoring the ids in `skip`."""
        run, kinds = self.array[start:stop], self.kinds[start:stop]
        rest = kinds[~skip]
        if rest.size == 0:
            return ("masked" if run.size else "text"), run.copy()
        kind = int(rest[0])
        wanted = f"an id of {self.names[kind]}" if kind >= 0 else f"an id of {self.names}"
        require(((kinds == kind) & (kinds >= 0)) | skip, run, "ids", wanted, start)
        return self.names[kind], run - self.offsets[kind]


def _segment_ids(vocabulary: Vocabulary, kind: str, values: ArrayLike, name: str) -> np.ndarray:
    """Return the joint ids of a segment's values, mask tokens where they are negative."""
    array = integer_array(values, name).reshape(-1)  # (h, w) -> (h * w,)
    cut = array < 0
    masks = len(vocabulary.mask_ids)
    require(array >= -masks, array, name, f"at most {masks} masks")
    ids = np.where(cut, np.array(vocabulary.mask_ids)[np.where(cut, -1 - array, 0)], array)
    if kind == "text":
        wanted = "a text id that is not structural"
        require(vocabulary.is_text(array) | cut, array, name, wanted)
    elif kind == "masked":
        require(cut, array, name, "masks alone")
    else:
        ids[~cut] = vocabulary.block(kind).codes_to_ids(np.where(cut, 0, array), name)[~cut]
    return ids


def _fail(array: np.ndarray, position: int, wanted: str) -> NoReturn:
    got = int(array[position]) if position < array.size else "the end of the ids"
    raise ValueError(f"ids: at position {position} wanted {wanted}, got {got}")
