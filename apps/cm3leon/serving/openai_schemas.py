"""Bodies and answers of the endpoints that OpenAI's clients use, as far as a run can serve them."""

from __future__ import annotations

from typing import Annotated, Literal

from fastapi import UploadFile
from pydantic import BaseModel, ConfigDict, Field

from cm3leon.serving.answer_schemas import Png
from cm3leon.serving.schemas import Body, Count, Seed, Text

IGNORED = "Accepted, and without effect"
Ignored = Annotated[str | None, Field(description=IGNORED)]


class Images(Body):
    """How many pictures, and in which form; what a run cannot do is refused."""

    model: str | None = Field(None, description="The run's name")
    n: Count | None = 1
    size: str | None = Field(None, description="The run's own, such as 64x64, or auto")
    response_format: Literal["b64_json"] | None = None
    seed: Seed | None = Field(None, description="Ours: of the first picture; absent: any")
    user: Ignored = None


class Sketched(Images):
    """More about pictures of a prompt."""

    prompt: Text
    output_format: Literal["png"] | None = None
    background: Literal["auto", "opaque"] | None = None
    stream: bool | None = None
    partial_images: Annotated[int, Field(ge=0, le=3)] | None = None
    quality: Ignored = None
    safety_identifier: Ignored = None
    output_compression: int | None = Field(None, description=IGNORED)


class GenerationBody(Sketched):
    """Pictures of a prompt."""

    style: Ignored = None
    moderation: Ignored = None


class EditForm(Sketched):
    """A picture with its transparent part drawn anew, or changed by an instruction."""

    model_config = ConfigDict(strict=False)

    image: list[UploadFile] = Field([], max_length=1)
    images: list[UploadFile] = Field([], max_length=1, alias="image[]")
    mask: UploadFile | None = None
    input_fidelity: Ignored = None


class VariationForm(Images):
    """New pictures of what a picture shows."""

    model_config = ConfigDict(strict=False)

    image: UploadFile


class ImageAnswer(BaseModel):
    """A picture."""

    b64_json: Png
    seed: int


class ImagesAnswer(BaseModel):
    """Pictures, the best first."""

    created: int
    data: list[ImageAnswer]
    background: Literal["opaque"] = "opaque"
    output_format: Literal["png"] = "png"
    size: str


class ImageEvent(BaseModel):
    """A picture while it is drawn, or a finished one."""

    type: str
    b64_json: Png
    created_at: int
    size: str
    quality: Literal["auto"] = "auto"
    background: Literal["opaque"] = "opaque"
    output_format: Literal["png"] = "png"


class PartialEvent(ImageEvent):
    """A picture of which the upper part is drawn, on white."""

    partial_image_index: int


class CompletedEvent(ImageEvent):
    """A finished picture."""

    seed: int


class ModelAnswer(BaseModel):
    """A run."""

    id: str
    object: Literal["model"] = "model"
    created: int
    owned_by: Literal["cm3leon"] = "cm3leon"


class ModelsAnswer(BaseModel):
    """All runs, of which a service has one."""

    object: Literal["list"] = "list"
    data: list[ModelAnswer]
