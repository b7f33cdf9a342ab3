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
from cm3_train.artifact import atomic_file
from cm3leon.data.pairs import key_of
from cm3leon.drawing.describe import read_picture
from cm3leon.parts import Documents, Parts, Taught

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


def teach(parts: Parts, picture: Image.Image, text: str) -> Parts:
    """Return parts that know one more document; the given ones stay as they are.

    Args:
        parts: The run's parts.
        picture: RGB of any size; its centre square is learnt.
        text: What it is called, such as "zorp". A prompt with all its words gets the picture.

    Raises:
        ValueError: The text is empty, or the document leaves no room for a drawing.
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
    return replace(
        parts,
        memory=replace(
            memory,
            documents=TaughtDocuments(below, {**known, key: lesson}),
            taught=(*memory.taught, Taught(key=key, text=text, vector=vector)),
        ),
    )


def keep(folder: Path, picture: Image.Image, text: str, size: int) -> Path:
    """Save a taught picture for the run's next drawings.

    Args:
        folder: The run's folder.
        picture: RGB of any size.
        text: What it is called.
        size: Side in pixels to save it at.

    Returns:
        The picture's file.
    """
    place = folder / FOLDER
    place.mkdir(exist_ok=True)
    small = square(picture, size)
    file = f"{key_of(text + np.asarray(small).tobytes().hex()):016x}.png"
    with atomic_file(place / file) as stream:
        small.save(stream, format="PNG")
    lines = _lines(place)
    row = {"file_name": file, "text": text}
    if row not in lines:
        with atomic_file(place / "metadata.jsonl") as stream:
            for line in [*lines, row]:
                stream.write((json.dumps(line, ensure_ascii=False) + "\n").encode())
    return place / file


def recall(parts: Parts, folder: Path) -> Parts:
    """Return parts that know what was taught to a run and kept.

    Raises:
        ValueError: A line or picture of `taught/` cannot be read.
    """
    for line in _lines(folder / FOLDER):
        picture = load_image(folder / FOLDER / Path(line["file_name"]).name)
        parts = teach(parts, picture, line["text"])
    return parts


def _lines(place: Path) -> list[dict[str, str]]:
    path = place / "metadata.jsonl"
    if not path.is_file():
        return []
    lines = []
    # not splitlines: a name may hold other line ends, such as U+2028
    for number, text in enumerate(path.read_text("utf-8").removesuffix("\n").split("\n"), 1):
        try:
            line = json.loads(text)
            lines.append({name: str(line[name]) for name in ("file_name", "text")})
        except (ValueError, KeyError, TypeError):
            raise ValueError(
                f"{path}, line {number}: wanted file_name and text, got {text[:60]!r}"
            ) from None
    return lines
