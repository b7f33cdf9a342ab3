"""The ids and the document layout of Chameleon (arXiv 2405.09818), which Anole shares.

A `Tokenizer` and a `Vocabulary` from the published `tokenizer.json`, and a layout: a document is
`<s> T <begin of image> I <end of image> T ... </s>`; a turn of a dialogue ends with an id of its
own. Image ids are 4 to 8195, text starts at 16384, and there are 65536 ids. Which code of the image
tokenizer an image id means, its name in the file says: `chameleon_codes`.
"""

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike

from cm3_texttok.arrays import integer_array, require
from cm3_texttok.huggingface import HFTokenizer
from cm3_texttok.reading import Segment
from cm3_texttok.text_file import parse_object
from cm3_texttok.vocabulary import IdBlock, Vocabulary

BEGIN_ID = 0
"""Id of `<s>`, which opens a document."""
PAD_ID = 1
"""Id of `<pad>`."""
END_ID = 2
"""Id of `</s>`, which closes a document."""
IMAGE = IdBlock(name="image", offset=4, size=8192)
"""The image ids."""
END_OF_IMAGE_ID = 8196
"""The id after the codes of an image."""
BEGIN_OF_IMAGE_ID = 8197
"""The id before the codes of an image."""
END_OF_TURN_ID = 8710
"""The id at the end of a turn, a prompt or an answer."""
TEXT = IdBlock(name="text", offset=16384, size=65536 - 16384)
"""The ids of BPE pieces."""

# Chameleon has no ids for masks. These lie in the run that it leaves free, so its published weights
# have not learnt them: train them before use.
INFILL_ID = 8709
MASK_IDS = tuple(range(8198, 8214))


_DIGITS = str.maketrans("ABCDEFGHIJ", "0123456789")


def chameleon_tokenizer(path: str | Path) -> HFTokenizer:
    """Load a Chameleon or Anole `tokenizer.json`; no text gets an id below 16384.

    Raises:
        ValueError: The file has another layout, or `HFTokenizer` refuses it.
    """
    tokenizer = HFTokenizer(
        path,
        pad_id=PAD_ID,
        eos_id=END_ID,
        break_id=BEGIN_OF_IMAGE_ID,
        infill_id=INFILL_ID,
        mask_ids=MASK_IDS,
        reserved=range(TEXT.offset),
        image_offset=IMAGE.offset,
    )
    if tokenizer.vocab_size != TEXT.stop:
        wanted = f"Chameleon's {TEXT.stop} ids"
        raise ValueError(f"{path}: wanted {wanted}, got {tokenizer.vocab_size}")
    return tokenizer


def chameleon_codes(path: str | Path) -> np.ndarray:
    """Return the code of the image tokenizer that each image id means, int64 (8192,).

    An image id is named `IMGIMG...Z`; A to J in the middle are the digits of its code. Where the
    file names none, id 4 + c is code c.

    Raises:
        ValueError: The names are not those of all codes, each once.
    """
    names = chameleon_names(path)
    said = {
        place: int(found[1].translate(_DIGITS))
        for name, place in names.items()
        if (found := re.fullmatch(r"IMGIMG([A-J]+)Z", name))
    }
    if not said:
        return np.arange(IMAGE.size)
    codes = np.array([said.get(place, -1) for place in range(IMAGE.offset, IMAGE.stop)])
    if len(said) != IMAGE.size or not np.array_equal(np.sort(codes), np.arange(IMAGE.size)):
        raise ValueError(
            f"{path}: wanted a name IMGIMG...Z of each code 0 to {IMAGE.size - 1} at the ids "
            f"{IMAGE.offset} to {IMAGE.stop - 1}, got {len(said)} names that are not these"
        )
    return codes


def chameleon_names(path: str | Path) -> dict[str, int]:
    """Return the id of every name in a `tokenizer.json`, added tokens among them.

    Raises:
        ValueError: The file is no `tokenizer.json`.
    """
    settings = parse_object(Path(path).read_bytes(), Path(path))
    try:
        added = {token["content"]: token["id"] for token in settings.get("added_tokens", [])}
        return {**settings["model"]["vocab"], **added}
    except (KeyError, TypeError) as error:
        raise ValueError(f"{path}: wanted a tokenizer.json, got one without {error}") from None


def chameleon_vocabulary(tokenizer: HFTokenizer) -> Vocabulary:
    """Return Chameleon's joint id space, for a `DocumentLayout` over its ids."""
    return Vocabulary.from_tokenizer(tokenizer, IMAGE.size)


class ChameleonLayout:
    """Documents and prompts in the layout of Chameleon's training.

    A segment is `("text", ids)`, `("image", codes)` (a grid, or flattened row by row), or
    `("end_of_turn", [])`. Two texts cannot stand side by side: nothing would tell them apart.
    """

    def document(self, segments: Sequence[Segment]) -> np.ndarray:
        """Return `<s> segments </s>`, int64.

        Raises:
            ValueError: A segment is empty, of another kind, or holds an id or code out of range.
        """
        return np.append(self.prompt(segments), END_ID)

    def prompt(self, segments: Sequence[Segment]) -> np.ndarray:
        """Return `<s> segments`, int64, to be continued; `("end_of_turn", [])` at its end asks."""
        parts, last = [np.array([BEGIN_ID])], None
        for n, (kind, values) in enumerate(segments):
            name = f"segments[{n}]"
            if kind == "text" == last:
                raise ValueError(f"{name}: wanted another segment between two texts, got none")
            parts.append(self._segment(kind, values, name))
            last = kind
        return np.concatenate(parts).astype(np.int64)

    def read(self, ids: ArrayLike) -> list[tuple[str, np.ndarray]]:
        """Return the segments of a document or of a prompt.

        Raises:
            ValueError: The array has another layout; the error says at which position.
        """
        array = integer_array(ids, "ids")
        if array.ndim != 1 or array.size == 0 or array[0] != BEGIN_ID:
            raise ValueError(f"ids: at position 0 wanted <s> ({BEGIN_ID}), got {array[:1]}")
        stop = array.size - (array.size > 1 and array[-1] == END_ID)
        # Every id that is neither text nor an image code ends the run before it.
        marks = np.flatnonzero(~TEXT.contains(array[:stop]) & ~IMAGE.contains(array[:stop]))
        segments, inside = [], False
        for mark, end in zip(marks.tolist(), [*marks[1:].tolist(), stop], strict=True):
            wanted = [END_OF_IMAGE_ID] if inside else [BEGIN_OF_IMAGE_ID, END_OF_TURN_ID]
            if mark > 0 and array[mark] not in wanted:
                raise ValueError(
                    f"ids: at position {mark} wanted one of {wanted}, got {array[mark]}"
                )
            if array[mark] == END_OF_TURN_ID:
                segments.append(("end_of_turn", array[:0]))
            inside = array[mark] == BEGIN_OF_IMAGE_ID
            block, run = IMAGE if inside else TEXT, array[mark + 1 : end]
            require(block.contains(run), run, "ids", f"an id of {block.name}", mark + 1)
            if inside and (end == stop or run.size == 0):
                wanted = f"an image and its end ({END_OF_IMAGE_ID})"
                got = int(array[end]) if end < array.size else "the end of the ids"
                raise ValueError(f"ids: at position {end} wanted {wanted}, got {got}")
            if run.size:
                segments.append((block.name, IMAGE.ids_to_codes(run) if inside else run))
        return segments

    def _segment(self, kind: str, values: ArrayLike, name: str) -> np.ndarray:
        array = integer_array(values, name).reshape(-1)  # (h, w) -> (h * w,)
        if kind == "end_of_turn":
            return np.array([END_OF_TURN_ID])
        if kind not in ("text", "image"):
            raise ValueError(f"{name}: wanted text, image or end_of_turn, got {kind!r}")
        if array.size == 0:
            raise ValueError(f"{name}: wanted at least one {kind} id, got none")
        if kind == "text":
            require(TEXT.contains(array), array, name, "a text id from 16384 on")
            return array
        return np.r_[BEGIN_OF_IMAGE_ID, IMAGE.codes_to_ids(array, name), END_OF_IMAGE_ID]
