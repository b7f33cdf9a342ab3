"""Answers and events of our own endpoints; answers of OpenAI's are in `openai_schemas`."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from cm3leon.serving.schemas import Key

Png = Annotated[str, Field(description="Base64 of a PNG", json_schema_extra={"format": "byte"})]


class DocumentAnswer(BaseModel):
    """A document that may stand before a prompt."""

    key: Key
    caption: str
    score: float | None
    picture: Png
    taught: bool


class DocumentsAnswer(BaseModel):
    """Documents, the best first."""

    documents: list[DocumentAnswer]


class TaughtAnswer(BaseModel):
    """What a session was taught."""

    taught: list[DocumentAnswer]


class WaitingEvent(BaseModel):
    """Requests that come before this one."""

    place: int


class ProgressEvent(BaseModel):
    """New ids of each candidate."""

    done: int
    steps: int


class RowsEvent(BaseModel):
    """The upper part of the pictures, in the order of the seeds."""

    rows: int
    of: int
    pictures: list[Png]


class Drawn(BaseModel):
    """A picture that was drawn."""

    picture: Png
    seed: int
    score: float | None


class PicturesAnswer(BaseModel):
    """Pictures, the best first."""

    pictures: list[Drawn]
    shown: dict[str, Png] = Field(description="What the run was shown, as it saw it")


class Written(BaseModel):
    """A text that was written."""

    text: str
    score: float | None


class TextsAnswer(BaseModel):
    """Texts, the best first."""

    texts: list[Written]


class RunAnswer(BaseModel):
    """A run and what it can do."""

    model_config = ConfigDict(extra="allow")

    name: str
    size: int
    grid: list[int]
    version: str
    can: list[str]
    structure: list[str]
    samplers: list[str]
    defaults: dict[str, Any]
    limits: dict[str, int | float]
    examples: list[str]
    memory: bool


class HealthAnswer(BaseModel):
    """Whether the service can draw."""

    status: Literal["ok", "stopped"]


class Problem(BaseModel):
    """What is wrong with a request."""

    message: str
    type: str
    param: str | None
    code: str | None


class ErrorAnswer(BaseModel):
    """The answer to a request that is refused."""

    error: Problem
