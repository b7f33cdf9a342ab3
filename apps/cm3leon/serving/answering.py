"""Events of a service as answers: server-sent events while they happen, or JSON at their end.

A client that goes away cancels its work, whatever it waits for.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections.abc import AsyncGenerator, Coroutine
from contextlib import aclosing
from typing import Any, TypeVar

from fastapi.sse import KEEPALIVE_COMMENT, EventSourceResponse, format_sse_event
from pydantic import BaseModel
from starlette.types import Receive, Scope, Send

from cm3leon.serving.answer_schemas import (
    DocumentAnswer,
    DocumentsAnswer,
    Drawn,
    PicturesAnswer,
    ProgressEvent,
    RowsEvent,
    TextsAnswer,
    WaitingEvent,
    Written,
)
from cm3leon.serving.asked import (
    Asked,
    Document,
    Documents,
    Event,
    Late,
    Pictures,
    Progress,
    Rows,
    Texts,
    Waiting,
)
from cm3leon.serving.interface import Service, Session
from cm3leon.serving.metrics import Metrics
from cm3leon.serving.pictures import PictureFiles
from cm3leon.serving.refusals import Refused, refusal_of

PING = 15.0
"""Seconds between comments that keep a quiet stream open."""
MARGIN = 30.0
"""Seconds beyond the service's own limit, after which a client that does not read is left."""
STREAM_HEADERS = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
INTERNAL = Refused(500, "internal_error", "the service failed; its log says more")

log = logging.getLogger("cm3leon.serving")
T = TypeVar("T")
Message = tuple[str, BaseModel]
"""Name and data of a server-sent event."""


def problem_of(error: Exception) -> Refused:
    """Return the answer to any error; the program's own are logged, and say nothing."""
    if (refused := refusal_of(error)) is None:
        log.error("a request failed", exc_info=error)
        return INTERNAL
    return refused


async def while_connected(receive: Receive, work: Coroutine[Any, Any, T], seconds: float) -> T:
    """Return what work gives; cancel it when its client goes away, or when it takes too long.

    Args:
        receive: The request's, its body read.
        work: What the client waits for.
        seconds: The longest that it may take, with `MARGIN` more.

    Raises:
        Refused: The client is gone (status 499, which nobody sees).
        Late: It took too long.
    """
    working = asyncio.ensure_future(work)
    leaving = asyncio.ensure_future(_gone(receive))
    both = {working, leaving}
    try:
        done, _ = await asyncio.wait(
            both, timeout=seconds + MARGIN, return_when=asyncio.FIRST_COMPLETED
        )
        if working in done:
            return working.result()
        raise Refused(499, "gone", "the client went away") if done else Late()
    finally:
        for task in both:
            task.cancel()
        await asyncio.gather(*both, return_exceptions=True)


async def _gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def last_of(events: AsyncGenerator[Event, None]) -> Pictures | Texts:
    """Return the last event, which is the answer."""
    last: Event | None = None
    async with aclosing(events) as running:
        async for event in running:
            last = event
    assert isinstance(last, Pictures | Texts), last
    return last


class EventStream(EventSourceResponse):
    """Server-sent events of a work; what fails before the first is no stream but an error."""

    def __init__(
        self,
        messages: AsyncGenerator[Message, None],
        metrics: Metrics,
        *,
        seconds: float,
    ) -> None:
        """Make one.

        Args:
            messages: The events; closed when the client goes away.
            metrics: What counts the errors.
            seconds: As of `while_connected`.
        """
        super().__init__((), headers=STREAM_HEADERS)
        self._messages, self._metrics, self._seconds = messages, metrics, seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer."""
        await while_connected(receive, self._send(send), self._seconds)

    async def _send(self, send: Send) -> None:
        async def part(content: bytes, *, more: bool = True) -> None:
            await send({"type": "http.response.body", "body": content, "more_body": more})

        pinging: asyncio.Task[None] | None = None
        try:
            async with aclosing(self._messages) as messages:
                async for name, data in messages:
                    if pinging is None:
                        start = {"status": self.status_code, "headers": self.raw_headers}
                        await send({"type": "http.response.start", **start})
                        pinging = asyncio.ensure_future(_ping(part))
                    text = data.model_dump_json()
                    await part(format_sse_event(event=name, data_str=text))
        except Exception as error:
            if pinging is None:
                raise
            refused = problem_of(error)
            self._metrics.refused(refused.code)
            await part(format_sse_event(event="error", data_str=refused.body().decode()))
        finally:
            if pinging is not None:
                pinging.cancel()
        await part(b"", more=False)


async def _ping(part: Any) -> None:
    while True:
        await asyncio.sleep(PING)
        await part(KEEPALIVE_COMMENT)


class Serving:
    """What the endpoints answer with."""

    def __init__(self, service: Service) -> None:
        """Serve a service."""
        self.service = service
        self.since = int(time.time())
        # of its own name: cookies know no port, and another service may be on this host
        self.cookie = f"cm3_session_{secrets.token_hex(4)}"
        self.files = PictureFiles(service.limits)
        self.metrics = Metrics(service.counts)

    @property
    def seconds(self) -> float:
        """The longest that a request may take."""
        return self.service.limits.seconds

    async def events(
        self, asked: Asked, session: Session, *, partial: bool = True
    ) -> AsyncGenerator[Event, None]:
        """Give the service's events, and count what was made; `partial` as of the service."""
        async with aclosing(self.service.answer(asked, session, partial=partial)) as events:
            async for event in events:
                if isinstance(event, Pictures):
                    self.metrics.made("pictures", len(event.seeds))
                elif isinstance(event, Texts):
                    self.metrics.made("texts", len(event.texts))
                yield event

    async def messages(self, asked: Asked, session: Session) -> AsyncGenerator[Message, None]:
        """Give the events as our own endpoints send them."""
        async with aclosing(self.events(asked, session)) as events:
            async for event in events:
                yield await self.message_of(event)

    async def message_of(self, event: Event) -> Message:
        """Return an event's name and data."""
        match event:
            case Waiting():
                return "waiting", WaitingEvent(place=event.place)
            case Documents():
                documents = await self.documents(event.documents)
                return "documents", DocumentsAnswer(documents=documents)
            case Progress():
                return "progress", ProgressEvent(done=event.done, steps=event.steps)
            case Rows():
                pictures = await self.files.encoded(event.pixels)
                return "rows", RowsEvent(rows=event.rows, of=event.of, pictures=pictures)
            case Pictures():
                return "pictures", await self.pictures(event)
            case Texts():
                return "texts", texts_of(event)

    async def pictures(self, event: Pictures) -> PicturesAnswer:
        """Return the answer of finished pictures."""
        files = await self.files.encoded([*event.pixels, *event.shown.values()])
        scores = event.scores or [None] * len(event.seeds)
        drawn = [
            Drawn(picture=file, seed=seed, score=score)
            for file, seed, score in zip(files, event.seeds, scores, strict=False)
        ]
        shown = dict(zip(event.shown, files[len(drawn) :], strict=True))
        return PicturesAnswer(pictures=drawn, shown=shown)

    async def documents(self, documents: tuple[Document, ...]) -> list[DocumentAnswer]:
        """Return documents as answers."""
        files = await self.files.encoded([one.pixels for one in documents])
        return [
            DocumentAnswer(
                key=str(one.key),
                caption=one.caption,
                score=one.score,
                picture=file,
                taught=one.taught,
            )
            for one, file in zip(documents, files, strict=True)
        ]


def texts_of(event: Texts) -> TextsAnswer:
    """Return the answer of finished texts."""
    scores = event.scores or [None] * len(event.texts)
    pairs = zip(event.texts, scores, strict=True)
    return TextsAnswer(texts=[Written(text=text, score=score) for text, score in pairs])
