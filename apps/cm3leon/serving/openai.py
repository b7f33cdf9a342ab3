"""The endpoints of OpenAI's that a run can serve: their clients draw with it as they are."""

from __future__ import annotations

import secrets
import time
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Annotated, Any

import numpy as np
from fastapi import APIRouter, Depends, Form, Request

from cm3leon.serving.answering import EventStream, Message, Serving, last_of, while_connected
from cm3leon.serving.asked import Asked, Draw, Edit, Event, Infill, Pictures, Rows, Vary
from cm3leon.serving.endpoints import JSON, WORK, Here, Own, refusals, stream_of
from cm3leon.serving.interface import Session
from cm3leon.serving.openai_schemas import (
    CompletedEvent,
    EditForm,
    GenerationBody,
    ImageAnswer,
    Images,
    ImagesAnswer,
    ModelAnswer,
    ModelsAnswer,
    PartialEvent,
    Sketched,
    VariationForm,
)
from cm3leon.serving.refusals import Refused
from cm3leon.serving.schemas import MOST_SEED, check
from cm3leon.serving.security import wants

KINDS = ("image_generation", "image_edit")
STREAM = stream_of(
    [f"{kind}.{part}" for kind in KINDS for part in ("partial_image", "completed")] + ["error"],
    "with `stream`",
)
ANSWERS = {"response_model": ImagesAnswer, "responses": {200: STREAM, **refusals(404, *WORK)}}
MULTIPART = Form(media_type="multipart/form-data")
UPLOADED = [Depends(wants("multipart/form-data"))]

router = APIRouter()


@router.get("/v1/models", response_model=ModelsAnswer, responses=refusals())
async def models(serving: Here) -> ModelsAnswer:
    """List the run."""
    return ModelsAnswer(data=[model_of(serving)])


@router.get("/v1/models/{name}", response_model=ModelAnswer, responses=refusals(404))
async def model(name: str, serving: Here) -> ModelAnswer:
    """Return the run."""
    check_model(name, serving)
    return model_of(serving)


@router.post("/v1/images/generations", dependencies=JSON, **ANSWERS)
async def generate(body: GenerationBody, request: Request, serving: Here, session: Own) -> Any:
    """Draw pictures of a prompt."""
    choices = choices_of(body, serving)
    asked = Draw(prompt=body.prompt, **choices)
    return await answered("image_generation", asked, body, request, serving, session)


@router.post("/v1/images/edits", dependencies=UPLOADED, **ANSWERS)
async def edit(
    form: Annotated[EditForm, MULTIPART], request: Request, serving: Here, session: Own
) -> Any:
    """Draw the part of a picture anew where the mask is transparent; without a mask, edit it."""
    choices = choices_of(form, serving)
    images = [*form.image, *form.images]
    if len(images) != 1:
        raise ValueError(f"image: wanted one picture, got {len(images)}")
    file = await images[0].read()
    if form.mask is not None:
        mask = await form.mask.read()
        picture, anew = await serving.files.masked(file, mask, "image", transparent=True)
        asked = Infill(picture=picture, mask=anew, prompt=form.prompt, **choices)
    elif "edit" in serving.service.about()["can"]:
        picture = await serving.files.picture(file, "image")
        asked = Edit(picture=picture, instruction=form.prompt, **choices)
    else:
        raise ValueError("mask: wanted one, since this run was not tuned to edit by instructions")
    return await answered("image_edit", asked, form, request, serving, session)


@router.post("/v1/images/variations", dependencies=UPLOADED, **ANSWERS)
async def vary(
    form: Annotated[VariationForm, MULTIPART], request: Request, serving: Here, session: Own
) -> Any:
    """Draw what a picture shows."""
    choices = choices_of(form, serving)
    picture = await serving.files.picture(await form.image.read(), "image")
    return await answered("", Vary(picture=picture, **choices), form, request, serving, session)


def model_of(serving: Serving) -> ModelAnswer:
    """Return the run as a model."""
    return ModelAnswer(id=serving.service.name, created=serving.since)


def check_model(name: str, serving: Serving) -> None:
    """Refuse a model that is not the run.

    Raises:
        Refused: It is another one.
    """
    if name != serving.service.name:
        text = f"model: wanted {serving.service.name!r}, got {name[:100]!r}"
        raise Refused(404, "model_not_found", text, param="model")


def size_of(serving: Serving) -> str:
    """Return the size of the run's pictures, as OpenAI writes it."""
    side = serving.service.about()["size"]
    return f"{side}x{side}"


def choices_of(body: Images, serving: Serving) -> dict[str, Any]:
    """Return the arguments of `asked.Choices`, once the run can do what is wanted.

    Raises:
        Refused: Another model is wanted.
        ValueError: Another size, or too much; names the parameter.
    """
    limits = serving.service.limits
    check(body, limits)
    if body.model:
        check_model(body.model, serving)
    if body.size not in (None, "auto", own := size_of(serving)):
        raise ValueError(f"size: wanted {own!r} or 'auto', got {body.size[:40]!r}")
    seed = secrets.randbelow(MOST_SEED - limits.candidates) if body.seed is None else body.seed
    return {"candidates": body.n or 1, "seed": seed}


async def answered(
    kind: str, asked: Asked, body: Images, request: Request, serving: Serving, session: Session
) -> Any:
    """Answer with pictures, or with events of a kind where those are wanted."""
    streams = isinstance(body, Sketched) and bool(body.stream)
    partial_images = (body.partial_images or 0) if isinstance(body, Sketched) and streams else 0
    events = serving.events(asked, session, partial=partial_images > 0)
    if streams:
        messages = messages_of(events, kind, partial_images, serving)
        return EventStream(messages, serving.metrics, seconds=serving.seconds)
    last = await while_connected(request.receive, last_of(events), serving.seconds)
    assert isinstance(last, Pictures), last
    files = await serving.files.encoded(last.pixels)
    pairs = zip(files, last.seeds, strict=True)
    data = [ImageAnswer(b64_json=file, seed=seed) for file, seed in pairs]
    return ImagesAnswer(created=int(time.time()), data=data, size=size_of(serving))


async def messages_of(
    events: AsyncGenerator[Event, None], kind: str, partial_images: int, serving: Serving
) -> AsyncGenerator[Message, None]:
    """Give OpenAI's events: the first picture in parts, evenly spread, then each finished one."""
    sent, created = 0, int(time.time())
    every = {"created_at": created, "size": size_of(serving)}
    async with aclosing(events) as running:
        async for event in running:
            if isinstance(event, Rows) and sent < partial_images and event.rows < event.of:
                if event.rows * (partial_images + 1) < (sent + 1) * event.of:
                    continue
                upper = event.pixels[0]
                missing = len(upper) * event.of // event.rows - len(upper)
                whole = np.pad(upper, ((0, missing), (0, 0), (0, 0)), constant_values=255)
                (file,) = await serving.files.encoded([whole])
                name = f"{kind}.partial_image"
                yield (
                    name,
                    PartialEvent(type=name, b64_json=file, partial_image_index=sent, **every),
                )
                sent += 1
            elif isinstance(event, Pictures):
                name = f"{kind}.completed"
                files = await serving.files.encoded(event.pixels)
                for file, seed in zip(files, event.seeds, strict=True):
                    yield name, CompletedEvent(type=name, b64_json=file, seed=seed, **every)
