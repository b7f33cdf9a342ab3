"""What may be asked of a run, and the events that answer.

Pictures and arrays alone: nothing here knows of HTTP, and nothing of models.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from PIL.Image import Image


@dataclass(frozen=True, kw_only=True)
class Choices:
    """How candidates are made, of whatever is asked for; None is as the run is used to."""

    candidates: int | None = None
    """Pictures or texts."""
    seed: int = 0
    """Of the first candidate; the others have the next ones."""
    sampler: str | None = None
    """"top-p", "cd-k", "greedy" or "mixed"."""
    changes: Mapping[str, Any] = field(default_factory=dict)
    """Fields of `SamplingConfig` that differ, such as `guidance_scale`."""
    retrieve: int | None = None
    """Documents before the prompt."""


@dataclass(frozen=True, kw_only=True)
class Draw(Choices):
    """Pictures of a prompt."""

    prompt: str
    documents: tuple[int, ...] | None = None
    """Keys of the documents before it, the best first; None retrieves them."""


@dataclass(frozen=True, kw_only=True)
class Describe(Choices):
    """Captions of a picture."""

    picture: Image


@dataclass(frozen=True, kw_only=True)
class Infill(Choices):
    """The picture with its painted part drawn anew."""

    picture: Image
    mask: np.ndarray
    """(H, W) bool, as large as the picture: what is drawn anew."""
    prompt: str
    """What the whole picture shall show."""


@dataclass(frozen=True, kw_only=True)
class Vary(Choices):
    """New pictures of what a picture shows: it stands before the prompt as a document."""

    picture: Image
    prompt: str | None = None
    """What they shall show; None describes the picture first."""


@dataclass(frozen=True, kw_only=True)
class Edit(Choices):
    """The picture changed by an instruction."""

    picture: Image
    instruction: str


@dataclass(frozen=True, kw_only=True)
class Ask(Choices):
    """The answer to a question about a picture."""

    picture: Image
    question: str


@dataclass(frozen=True, kw_only=True)
class Boxes(Choices):
    """Pictures of things at places."""

    boxes: tuple[tuple[str, tuple[int, int, int, int]], ...]
    """Name and (x0, y0, x1, y1) in 0..255 of each thing."""
    prompt: str | None = None
    """The whole picture's caption; None names the things."""


@dataclass(frozen=True, kw_only=True)
class Write(Choices):
    """Pictures of a written text."""

    text: str


@dataclass(frozen=True, kw_only=True)
class Structure(Choices):
    """Pictures of a prompt along the edges, or another feature, of a picture."""

    picture: Image
    feature: str
    """Name of the feature, such as "canny"."""
    is_feature: bool = False
    """Whether the picture is the feature already."""
    prompt: str


Asked = Draw | Describe | Infill | Vary | Edit | Ask | Boxes | Write | Structure


@dataclass(frozen=True, kw_only=True)
class Document:
    """A document of the memory, or one that was taught."""

    key: int
    caption: str
    score: float
    """Cosine with what it was retrieved for; 1 for one that was just taught."""
    pixels: np.ndarray
    """(H, W, 3) uint8."""
    taught: bool


@dataclass(frozen=True, kw_only=True)
class Waiting:
    """An event: requests that come before this one."""

    place: int


@dataclass(frozen=True, kw_only=True)
class Documents:
    """An event: what stands before the prompt, the best first."""

    documents: tuple[Document, ...]


@dataclass(frozen=True, kw_only=True)
class Progress:
    """An event: new ids of each candidate so far."""

    done: int
    steps: int


@dataclass(frozen=True, kw_only=True)
class Rows:
    """An event: the pictures so far, after another row of codes."""

    rows: int
    of: int
    pixels: np.ndarray
    """(C, H * rows // of, W, 3) uint8, in the order of the seeds."""


@dataclass(frozen=True, kw_only=True)
class Pictures:
    """The last event of what is drawn, the best first."""

    pixels: np.ndarray
    """(C, H, W, 3) uint8."""
    seeds: tuple[int, ...]
    scores: tuple[float, ...] | None
    """CLIP's cosines with the prompt; None where nobody judged."""
    shown: Mapping[str, np.ndarray] = field(default_factory=dict)
    """What the run was shown, as it saw it, (H, W, 3) each: "source", "canny", ..."""


@dataclass(frozen=True, kw_only=True)
class Texts:
    """The last event of what is written, the best first."""

    texts: tuple[str, ...]
    scores: tuple[float, ...] | None


Event = Waiting | Documents | Progress | Rows | Pictures | Texts


class Full(Exception):
    """Too much waits already."""

    def __init__(self, retry_after: float) -> None:
        """Say in how many seconds there should be room."""
        super().__init__(f"busy: come again in {retry_after:.0f} s")
        self.retry_after = retry_after


class Late(Exception):
    """A request took longer than the service allows."""


class Stopped(Exception):
    """The service ends."""


class Broken(Exception):
    """The model failed."""
