"""Bodies of requests to our own endpoints; those of OpenAI's are in `openai_schemas`."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator
from dataclasses import fields
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from cm3_decoding import SamplingConfig
from cm3leon.serving.asked import (
    Ask,
    Asked,
    Boxes,
    Describe,
    Draw,
    Edit,
    Infill,
    Structure,
    Vary,
    Write,
)
from cm3leon.serving.limits import DOCUMENTS, Limits
from cm3leon.serving.pictures import PictureFiles

MOST_SEED = 2**63 - 1
MOST_FIELDS = 32
"""Fields of one object, known before each of a million unknown ones gets a complaint."""
MOST_BOXES = 256
"""Items that are looked at, before a service's own limit is."""
MOST_IDS = 2**20
"""For numbers of ids to choose from, above any vocabulary."""
BOUNDS = {
    **dict.fromkeys(
        ("prompt", "instruction", "question", "text", "name", "feature"), "prompt_characters"
    ),
    **dict.fromkeys(("candidates", "n"), "candidates"),
    "boxes": "boxes",
}
"""Field -> what bounds it in a service's `Limits`: its characters, its value, or its items."""
CHOICES = ("candidates", "seed", "sampler", "retrieve")
"""Fields that are those of `asked.Choices`."""
CHANGES = {field.name for field in fields(SamplingConfig)} - {"sampler"}
"""Fields that are those of `SamplingConfig`."""
EXAMPLE = (
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAIAAACQd1PeAAAADElEQVR4nGP4z8AAAAMBAQDJ/pLvAAAAAElFTkSuQmCC"
)


def said(text: str) -> str:
    """Return a text that says something, or refuse it."""
    if "\0" in text or not text.strip():
        raise ValueError(f"wanted a text, not blank and without NUL, got {text[:40]!r}")
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ValueError("wanted Unicode text, got half a surrogate pair") from None
    return text


Text = Annotated[str, Field(min_length=1), AfterValidator(said)]
Key = Annotated[str, Field(pattern=r"^(0|[1-9][0-9]{0,18})$")]
Seed = Annotated[int, Field(ge=0, le=MOST_SEED)]
Count = Annotated[int, Field(ge=1)]
Retrieved = Annotated[int, Field(ge=0, le=DOCUMENTS)]
File = Annotated[
    str,
    Field(
        min_length=4,
        description="Base64 of a PNG, JPEG or WebP file, or a data: URL of one",
        examples=[EXAMPLE],
        json_schema_extra={"format": "byte"},
    ),
]
Coordinate = Annotated[int, Field(ge=0, le=255)]


class Body(BaseModel):
    """An object of a request; a field that means nothing is an error."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    @model_validator(mode="before")
    @classmethod
    def _few(cls, given: Any) -> Any:
        if isinstance(given, dict) and len(given) > MOST_FIELDS:
            raise ValueError(f"wanted at most {MOST_FIELDS} fields, got {len(given)}")
        return given


class Question(Body):
    """The body of a request that a run answers with events."""

    @abstractmethod
    async def asked(self, files: PictureFiles) -> Asked:
        """Return what is asked for, its pictures opened."""


class Choosing(Question):
    """How candidates are made; what is absent is as the run is used to."""

    candidates: Count | None = None
    seed: Seed = 0
    temperature: Annotated[float, Field(ge=0.01, le=100, allow_inf_nan=False)] | None = None
    top_p: Annotated[float, Field(gt=0, le=1, allow_inf_nan=False)] | None = None
    top_k: Annotated[int, Field(ge=0, le=MOST_IDS)] | None = None

    def choices(self) -> dict[str, Any]:
        """Return the arguments of `asked.Choices`."""
        given = {name: value for name, value in self if value is not None}
        changes = {name: value for name, value in given.items() if name in CHANGES}
        return {name: given[name] for name in CHOICES if name in given} | {"changes": changes}


class Guided(Choosing):
    """How candidates are made where several streams have a say."""

    sampler: Literal["top-p", "cd-k", "mixed", "greedy"] | None = None
    guidance_scale: Annotated[float, Field(ge=0, le=100, allow_inf_nan=False)] | None = None
    image_guidance_scale: Annotated[float, Field(ge=0, le=100, allow_inf_nan=False)] | None = None
    cd_alpha: Annotated[float, Field(gt=0, le=1, allow_inf_nan=False)] | None = None
    cd_k: Annotated[int, Field(ge=1, le=MOST_IDS)] | None = None


class Plain(Choosing):
    """How candidates are made where one stream alone has a say, behind documents."""

    sampler: Literal["top-p", "greedy"] | None = None
    retrieve: Retrieved | None = None


class DrawBody(Guided):
    """Pictures of a prompt."""

    prompt: Text
    retrieve: Retrieved | None = None
    documents: Annotated[list[Key], Field(max_length=DOCUMENTS)] | None = Field(
        None, description="Keys of what stands before the prompt; absent: what is retrieved"
    )

    async def asked(self, files: PictureFiles) -> Draw:
        """Return what is asked for."""
        keys = None if self.documents is None else tuple(map(int, self.documents))
        return Draw(prompt=self.prompt, documents=keys, **self.choices())


class DescribeBody(Plain):
    """Captions of a picture."""

    picture: File

    async def asked(self, files: PictureFiles) -> Describe:
        """Return what is asked for."""
        return Describe(picture=await files.picture(self.picture), **self.choices())


class InfillBody(Plain):
    """A picture with a part of it drawn anew."""

    picture: File
    mask: File = Field(description="A picture of the same size: what is white is drawn anew")
    prompt: Text

    async def asked(self, files: PictureFiles) -> Infill:
        """Return what is asked for."""
        picture, mask = await files.masked(self.picture, self.mask)
        return Infill(picture=picture, mask=mask, prompt=self.prompt, **self.choices())


class VaryBody(Guided):
    """New pictures of what a picture shows."""

    picture: File
    prompt: Text | None = None

    async def asked(self, files: PictureFiles) -> Vary:
        """Return what is asked for."""
        return Vary(picture=await files.picture(self.picture), prompt=self.prompt, **self.choices())


class EditBody(Guided):
    """A picture changed by an instruction."""

    picture: File
    instruction: Text

    async def asked(self, files: PictureFiles) -> Edit:
        """Return what is asked for."""
        picture = await files.picture(self.picture)
        return Edit(picture=picture, instruction=self.instruction, **self.choices())


class AskBody(Question):
    """A question about a picture."""

    picture: File
    question: Text

    async def asked(self, files: PictureFiles) -> Ask:
        """Return what is asked for."""
        return Ask(picture=await files.picture(self.picture), question=self.question)


class Thing(Body):
    """A thing and its place."""

    name: Text
    box: Annotated[list[Coordinate], Field(min_length=4, max_length=4)] = Field(
        description="x0, y0, x1, y1 in 0..255 of the picture's sides, x0 < x1 and y0 < y1"
    )


class BoxesBody(Guided):
    """Pictures of things at places."""

    boxes: Annotated[list[Thing], Field(min_length=1, max_length=MOST_BOXES)]
    prompt: Text | None = None

    async def asked(self, files: PictureFiles) -> Boxes:
        """Return what is asked for."""
        boxes = []
        for thing in self.boxes:
            x0, y0, x1, y1 = thing.box
            if x0 >= x1 or y0 >= y1:
                raise ValueError(f"boxes: wanted x0 < x1 and y0 < y1, got {thing.box}")
            boxes.append((thing.name, (x0, y0, x1, y1)))
        return Boxes(boxes=tuple(boxes), prompt=self.prompt, **self.choices())


class WriteBody(Guided):
    """Pictures of a written text."""

    text: Text

    async def asked(self, files: PictureFiles) -> Write:
        """Return what is asked for."""
        return Write(text=self.text, **self.choices())


class StructureBody(Guided):
    """Pictures of a prompt along a feature of a picture, such as its edges."""

    picture: File
    feature: Text
    is_feature: bool = Field(False, description="Whether the picture is the feature already")
    prompt: Text

    async def asked(self, files: PictureFiles) -> Structure:
        """Return what is asked for."""
        return Structure(
            picture=await files.picture(self.picture),
            feature=self.feature,
            is_feature=self.is_feature,
            prompt=self.prompt,
            **self.choices(),
        )


class DocumentsBody(Body):
    """What would stand before a prompt."""

    prompt: Text
    count: Annotated[int, Field(ge=1, le=DOCUMENTS)]


class TeachBody(Body):
    """A new thing."""

    picture: File
    name: Text


def check(body: BaseModel, limits: Limits) -> None:
    """Refuse a body beyond a service's limits, before anything is done for it.

    Raises:
        ValueError: A field is too long or too large; names it.
    """
    for name, value in _bounded(body):
        most = getattr(limits, BOUNDS[name])
        size = value if isinstance(value, int) else len(value)
        if size > most:
            of = {int: "", str: " characters"}.get(type(value), " items")
            raise ValueError(f"{name}: wanted at most {most}{of}, got {size}")
    seed = getattr(body, "seed", None) or 0
    count = getattr(body, "candidates", None) or getattr(body, "n", None) or limits.candidates
    if seed + count - 1 > MOST_SEED:
        most = MOST_SEED - count + 1
        raise ValueError(f"seed: wanted at most {most} for {count} candidates, got {seed}")


def _bounded(body: BaseModel) -> Iterator[tuple[str, Any]]:
    for name, value in body:
        if name in BOUNDS and value is not None:
            yield name, value
        for item in value if isinstance(value, list) else ():
            if isinstance(item, BaseModel):
                yield from _bounded(item)
