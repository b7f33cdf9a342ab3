"""Our own endpoints: what a run is asked, what it was taught, and how it is."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Header, Path, Request, Response

from cm3leon.serving.answer_schemas import (
    DocumentAnswer,
    DocumentsAnswer,
    ErrorAnswer,
    HealthAnswer,
    PicturesAnswer,
    RunAnswer,
    TaughtAnswer,
    TextsAnswer,
)
from cm3leon.serving.answering import EventStream, Serving, last_of, texts_of, while_connected
from cm3leon.serving.asked import Texts
from cm3leon.serving.interface import Session
from cm3leon.serving.metrics import CONTENT_TYPE
from cm3leon.serving.page_files import file_of
from cm3leon.serving.refusals import Refused
from cm3leon.serving.schemas import (
    AskBody,
    BoxesBody,
    DescribeBody,
    DocumentsBody,
    DrawBody,
    EditBody,
    InfillBody,
    Question,
    StructureBody,
    TeachBody,
    VaryBody,
    WriteBody,
    check,
)
from cm3leon.serving.security import set_session, wants

EVENTS = {
    "waiting": "requests before this one",
    "documents": "what stands before the prompt",
    "progress": "new ids of each candidate",
    "rows": "the upper part of the pictures",
    "pictures": "the last, as the JSON answer",
    "texts": "the last, as the JSON answer",
    "error": "the last, as an error's answer",
}
"""Names of server-sent events, and what their data, which are JSON, say."""


def stream_of(names: Iterable[str], when: str) -> dict[str, Any]:
    """Return the documentation of an answer that may be server-sent events.

    Args:
        names: The events'.
        when: They are sent.
    """
    fields = {
        "event": {"type": "string", "enum": [*names]},
        "data": {"type": "string", "contentMediaType": "application/json"},
    }
    event = {"type": "object", "properties": fields, "required": [*fields]}
    said = f"The answer; {when}, server-sent events that end with it"
    return {"description": said, "content": {"text/event-stream": {"itemSchema": event}}}


def refusals(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Return the documentation of errors."""
    every = (400, 401, 403, 408, 413, *statuses)
    return {status: {"model": ErrorAnswer} for status in every}


WORK = (415, 422, 429, 503, 504)
"""Errors of what is drawn, written or looked up."""
JSON = [Depends(wants("application/json"))]
STREAM = stream_of(EVENTS, "with `Accept: text/event-stream`")
STREAM["description"] += ": " + "; ".join(f"`{name}`: {text}" for name, text in EVENTS.items())
PICTURES: dict[str, Any] = {
    "response_model": PicturesAnswer,
    "responses": {200: STREAM, **refusals(*WORK)},
    "dependencies": JSON,
}
TEXTS: dict[str, Any] = {**PICTURES, "response_model": TextsAnswer}

READ = ["GET", "HEAD"]

page = APIRouter(include_in_schema=False)
state = APIRouter()
work = APIRouter()


async def serving_of(request: Request) -> Serving:
    """Return what the application serves with."""
    return request.app.state.serving


Here = Annotated[Serving, Depends(serving_of)]


async def token_of(
    request: Request, serving: Here, x_session: Annotated[str | None, Header(max_length=200)] = None
) -> str | None:
    """Return the token of its session that a client shows."""
    return x_session or request.cookies.get(serving.cookie)


Token = Annotated[str | None, Depends(token_of)]


async def session_of(token: Token, serving: Here) -> Session:
    """Return a client's session."""
    return serving.service.sessions.of(token)


Own = Annotated[Session, Depends(session_of)]


@page.api_route("/", methods=READ)
async def index(request: Request) -> Response:
    """Give the page."""
    return file_of(request.app.state.page, "index.html").response(request)


@page.api_route("/static/{name}", methods=READ)
async def static(request: Request, name: str) -> Response:
    """Give a file of the page."""
    return file_of(request.app.state.page, name).response(request)


@state.head("/healthz", include_in_schema=False)
@state.get("/healthz", responses={503: {"model": HealthAnswer}, **refusals()})
async def health(response: Response, serving: Here) -> HealthAnswer:
    """Say whether the service can draw."""
    if serving.service.alive:
        return HealthAnswer(status="ok")
    response.status_code = 503
    return HealthAnswer(status="stopped")


@state.get(
    "/metrics",
    response_class=Response,
    responses={200: {"content": {"text/plain": {"schema": {"type": "string"}}}}, **refusals()},
)
async def metrics(serving: Here) -> Response:
    """Give figures for Prometheus."""
    return Response(serving.metrics.text(), media_type=CONTENT_TYPE)


@state.get("/api/run", response_model=RunAnswer, responses=refusals())
async def run(serving: Here) -> dict[str, Any]:
    """Say what the run is and what may be asked of it."""
    return serving.service.about()


@work.post(
    "/api/documents",
    response_model=DocumentsAnswer,
    responses=refusals(*WORK),
    dependencies=JSON,
)
async def documents(body: DocumentsBody, request: Request, serving: Here, session: Own) -> Any:
    """Look up what would stand before a prompt."""
    check(body, serving.service.limits)
    asking = serving.service.documents(body.prompt, body.count, session)
    found = await while_connected(request.receive, asking, serving.seconds)
    return DocumentsAnswer(documents=await serving.documents(found))


@work.get("/api/taught", response_model=TaughtAnswer, responses=refusals(422, 504))
async def taught(request: Request, serving: Here, session: Own) -> TaughtAnswer:
    """List what this session was taught."""

    async def found() -> list[DocumentAnswer]:
        return await serving.documents(await serving.service.taught(session))

    return TaughtAnswer(taught=await while_connected(request.receive, found(), serving.seconds))


@work.post(
    "/api/taught",
    status_code=201,
    response_model=DocumentAnswer,
    responses=refusals(*WORK),
    dependencies=JSON,
)
async def teach(
    body: TeachBody, request: Request, response: Response, serving: Here, token: Token, session: Own
) -> DocumentAnswer:
    """Teach this session a new thing; the answer's `X-Session` says which session that is."""
    check(body, serving.service.limits)
    picture = await serving.files.picture(body.picture)
    teaching = serving.service.teach(picture, body.name, session)
    document = await while_connected(request.receive, teaching, serving.seconds)
    if session.token != token:
        response.headers["X-Session"] = session.token
        set_session(response, serving.cookie, session.token, secure=request.url.scheme == "https")
    return (await serving.documents((document,)))[0]


@work.delete("/api/taught/{key}", status_code=204, responses=refusals(404, 422, 503, 504))
async def forget(
    key: Annotated[str, Path(pattern=r"^(0|[1-9][0-9]{0,18})$")],
    request: Request,
    serving: Here,
    session: Own,
) -> None:
    """Forget something that this session was taught."""
    forgetting = serving.service.forget(int(key), session)
    if not await while_connected(request.receive, forgetting, serving.seconds):
        raise Refused(404, "not_found", f"key: nothing of this session has {key}", param="key")


@work.post("/api/draw", **PICTURES)
async def draw(body: DrawBody, request: Request, serving: Here, session: Own) -> Any:
    """Draw pictures of a prompt."""
    return await answered(body, request, serving, session)


@work.post("/api/describe", **TEXTS)
async def describe(body: DescribeBody, request: Request, serving: Here, session: Own) -> Any:
    """Describe a picture."""
    return await answered(body, request, serving, session)


@work.post("/api/infill", **PICTURES)
async def infill(body: InfillBody, request: Request, serving: Here, session: Own) -> Any:
    """Draw a part of a picture anew."""
    return await answered(body, request, serving, session)


@work.post("/api/vary", **PICTURES)
async def vary(body: VaryBody, request: Request, serving: Here, session: Own) -> Any:
    """Draw what a picture shows."""
    return await answered(body, request, serving, session)


@work.post("/api/edit", **PICTURES)
async def edit(body: EditBody, request: Request, serving: Here, session: Own) -> Any:
    """Change a picture by an instruction."""
    return await answered(body, request, serving, session)


@work.post("/api/ask", **TEXTS)
async def ask(body: AskBody, request: Request, serving: Here, session: Own) -> Any:
    """Answer a question about a picture."""
    return await answered(body, request, serving, session)


@work.post("/api/boxes", **PICTURES)
async def boxes(body: BoxesBody, request: Request, serving: Here, session: Own) -> Any:
    """Draw things at places."""
    return await answered(body, request, serving, session)


@work.post("/api/write", **PICTURES)
async def write(body: WriteBody, request: Request, serving: Here, session: Own) -> Any:
    """Draw a written text."""
    return await answered(body, request, serving, session)


@work.post("/api/structure", **PICTURES)
async def structure(body: StructureBody, request: Request, serving: Here, session: Own) -> Any:
    """Draw a prompt along a picture's edges, or another feature."""
    return await answered(body, request, serving, session)


async def answered(body: Question, request: Request, serving: Serving, session: Session) -> Any:
    """Answer a question: with its events if the client accepts those, else with the last one."""
    check(body, serving.service.limits)
    asked = await body.asked(serving.files)
    if "text/event-stream" in request.headers.get("accept", ""):
        messages = serving.messages(asked, session)
        return EventStream(messages, serving.metrics, seconds=serving.seconds)
    events = last_of(serving.events(asked, session, partial=False))
    last = await while_connected(request.receive, events, serving.seconds)
    return texts_of(last) if isinstance(last, Texts) else await serving.pictures(last)
