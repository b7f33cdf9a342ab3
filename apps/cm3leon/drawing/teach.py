"""Teaching a new thing from one picture: it becomes a document of the memory, no weight moves.

Taught documents lie over the run's own: the bank on disk stays as it is. Kept ones are an ordinary
folder of captioned pictures, `taught/` in the run's folder; delete a line to forget it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from PIL import Image

from cm3_imagetok import load_image, square
from cm3_retrieval import document_vectors
from cm3_retrieval.metadata_file import read_metadata
from cm3_retrieval.text_file import read_objects, read_text
from cm3_train.artifact import atomic_file
from cm3leon.data.pairs import key_of
from cm3leon.drawing.describe import read_picture
from cm3leon.parts import Documents, Parts, Retrieval, Taught

FOLDER = "taught"


@dataclass(frozen=True)
class Lesson:
    """One taught document."""

    text: str
    text_ids: np.ndarray
    codes: np.ndarray


@dataclass(frozen=True)
class TaughtDocuments:
    """Documents of a run with taught ones over them."""

    documents: Documents
    lessons: Mapping[int, Lesson]

    def num_views(self, key: int) -> int:
        """Return how many encodings of the picture there are."""
        return 1 if key in self.lessons else self.documents.num_views(key)

    def text_ids(self, key: int, view: int = 0) -> np.ndarray:
        """Return the caption's ids, (T,)."""
        lesson = self.lessons.get(key)
        return self.documents.text_ids(key, view) if lesson is None else lesson.text_ids

    def codes(self, key: int, view: int = 0) -> np.ndarray:
        """Return the picture's codes, row-major (n,)."""
        lesson = self.lessons.get(key)
        return self.documents.codes(key, view) if lesson is None else lesson.codes

    def caption(self, key: int, view: int = 0) -> str:
        """Return the caption."""
        lesson = self.lessons.get(key)
        return self.documents.caption(key, view) if lesson is None else lesson.text


def learn(parts: Parts, picture: Image.Image, text: str) -> Parts:
    """Return parts that know a document, as the latest; the given ones stay as they are.

    Args:
        parts: The run's parts.
        picture: RGB of any size; its centre square is learnt.
        text: What it is called, such as "zorp". A prompt with all its words gets the picture.

    Raises:
        ValueError: The text is empty, the document leaves no room for a drawing, or the run has no
            memory bank.
    """
    if not text.split():
        raise ValueError(f"text: wanted a name for the picture, got {text!r}")
    memory, tokenizers = parts.memory, parts.tokenizers
    pixels, codes = read_picture(tokenizers, picture)
    text_ids = tokenizers.text.encode(text)
    room = parts.model.config.max_length - 2 * len(codes) - 6
    if len(text_ids) > room:
        raise ValueError(
            f"text: wanted at most {room} tokens, so that a drawing has room behind it, "
            f"got {len(text_ids)}"
        )
    key = key_of(f"taught {text} {codes.tobytes().hex()}")
    vector = document_vectors(
        parts.encoder.encode_texts([text]), parts.encoder.encode_images([pixels])
    )[0]
    earlier = memory.documents
    known = earlier.lessons if isinstance(earlier, TaughtDocuments) else {}
    below = earlier.documents if isinstance(earlier, TaughtDocuments) else earlier
    lesson = Lesson(text, np.asarray(text_ids), codes)
    others = [one for one in memory.taught if one.key != key]
    return replace(
        parts,
        retrieval=Retrieval(
            encoder=parts.encoder,
            memory=replace(
                memory,
                documents=TaughtDocuments(below, {**known, key: lesson}),
                taught=(*others, Taught(key=key, text=text, vector=vector)),
            ),
        ),
    )


def forget(parts: Parts, key: int) -> Parts:
    """Return parts without a document that they were taught; the given ones stay as they are."""
    documents = parts.memory.documents
    if not isinstance(documents, TaughtDocuments):
        return parts
    lessons = {known: lesson for known, lesson in documents.lessons.items() if known != key}
    taught = tuple(one for one in parts.memory.taught if one.key != key)
    memory = replace(parts.memory, documents=replace(documents, lessons=lessons), taught=taught)
    return replace(parts, retrieval=Retrieval(encoder=parts.encoder, memory=memory))


def keep(folder: Path, picture: Image.Image, text: str, size: int) -> Path:
    """Save a taught picture for the run's next drawings.

    Args:
        folder: The run's folder.
        picture: RGB of any size.
        text: What it is called.
        size: Side in pixels to save it at.

    Returns:
        The picture's file.

    Raises:
        ValueError: A line of `metadata.jsonl` there is no JSON object.
    """
    place = folder / FOLDER
    place.mkdir(exist_ok=True)
    small = square(picture, size)
    file = f"{key_of(text + np.asarray(small).tobytes().hex()):016x}.png"
    with atomic_file(place / file) as stream:
        small.save(stream, format="PNG")
    metadata, row = place / "metadata.jsonl", {"file_name": file, "text": text}
    there = metadata.is_file()
    rows = [fields for _, fields in read_objects(metadata)] if there else []
    if not any(row.items() <= fields.items() for fields in rows):
        # the user's own lines and columns stay as they are
        earlier = read_text(metadata).rstrip("\n") if there else ""
        lines = [earlier] if earlier else []
        with atomic_file(metadata) as stream:
            for line in [*lines, json.dumps(row, ensure_ascii=False)]:
                stream.write(f"{line}\n".encode())
    return place / file


def recall(parts: Parts, folder: Path) -> Parts:
    """Return parts that know what was taught to a run and kept.

    Raises:
        ValueError: A line or picture of `taught/` cannot be read; names it.
    """
    place = folder / FOLDER
    for row in read_metadata(place) if place.is_dir() else ():
        if not row.captions:
            raise ValueError(f"{row.place}: wanted 'text', what the thing is called, got none")
        picture = load_image(place / row.file_name)
        for text in row.captions:
            parts = learn(parts, picture, text)
    return parts
