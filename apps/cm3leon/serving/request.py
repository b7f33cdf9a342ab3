"""One request on its way: prepared, waiting, drawn, finished; or cancelled."""

from __future__ import annotations

import asyncio
import functools
import time
from collections.abc import AsyncGenerator
from typing import TYPE_CHECKING, Any

from cm3_decoding import max_new_tokens
from cm3leon.drawing.continuation import Continuation
from cm3leon.joined_tokenizers import Tokenizers
from cm3leon.serving.asked import (
    Asked,
    Broken,
    Describe,
    Documents,
    Event,
    Late,
    Progress,
    Rows,
    Stopped,
    Texts,
    Vary,
    Waiting,
)
from cm3leon.serving.preparing import prepare
from cm3leon.serving.scheduler import Drawn, Failed, Finished, Job, Place, Report, Started
from cm3leon.serving.sessions import Session

if TYPE_CHECKING:
    from cm3leon.serving.service import Service

TEXT_STEPS = 8
"""New ids of a text between two events of progress."""


class Request:
    """One request on its way."""

    def __init__(self, service: Service, deadline: float) -> None:
        """Begin to wait; `deadline` is of `time.monotonic`."""
        self._service, self._deadline = service, deadline
        self._job: Job | None = None
        self._waits = True
        self._since = 0.0

    async def caption(self, asked: Vary, session: Session) -> str:
        """Return what a picture shows."""
        seen = Describe(picture=asked.picture, candidates=1, seed=asked.seed)
        async for event in self.answer(seen, session, partial=False):
            if isinstance(event, Texts):
                return event.texts[0].strip() or "picture"
        raise Stopped("the service ends")

    async def answer(
        self, asked: Asked, session: Session, partial: bool
    ) -> AsyncGenerator[Event, None]:
        """Yield the events of one thing that is drawn or written."""
        service = self._service
        prepared = await service.by_hand(
            lambda: prepare(asked, session.parts, service.tuned), self._deadline
        )
        continuation, tokenizers = prepared.continuation, session.parts.tokenizers
        if prepared.documents:
            yield Documents(documents=prepared.documents)
        reports: asyncio.Queue[Report] = asyncio.Queue()
        loop = asyncio.get_running_loop()

        def report(one: Report) -> None:
            if not loop.is_closed():
                loop.call_soon_threadsafe(reports.put_nowait, one)

        every = TEXT_STEPS if continuation.codes_so_far is None else tokenizers.grid[1]
        self._job = service.scheduler.submit(continuation.rows, report, every)
        steps = max(max_new_tokens(row.segments) for row in continuation.rows)
        while True:
            match await self._next(reports):
                case Place(ahead=ahead):
                    if self._waits:
                        yield Waiting(place=ahead)
                case Started():
                    self._start()
                case Drawn() as drawn:
                    yield Progress(done=max(map(len, drawn.ids)), steps=steps)
                    # who is late with one row of codes goes on with the next
                    if partial and reports.empty():
                        show = functools.partial(rows_of, continuation, tokenizers, drawn)
                        rows = await service.by_hand(show, self._deadline)
                        if rows is not None and rows.rows and reports.empty():
                            yield rows
                case Finished(ids=ids):
                    self._job = None
                    service.took(time.monotonic() - self._since)
                    yield await service.by_hand(
                        lambda: prepared.last_event(continuation.finish(ids)),
                        self._deadline,
                    )
                    return
                case Failed(error=error):
                    self._job = None
                    if isinstance(error, ValueError):  # rows have prompts, a request has one
                        raise ValueError(str(error).replace("prompts:", "prompt:", 1)) from error
                    if isinstance(error, Stopped):
                        raise error
                    raise Broken("the model failed") from error

    async def _next(self, reports: asyncio.Queue[Report]) -> Report:
        try:
            return await asyncio.wait_for(reports.get(), self._deadline - time.monotonic())
        except TimeoutError as error:
            seconds = self._service.limits.seconds
            raise Late(f"wanted an answer within {seconds:g} s") from error

    def _start(self) -> None:
        self._since = time.monotonic()
        if self._waits:
            self._waits = False
            self._service.started()

    def end(self) -> None:
        """Cancel what is not finished."""
        if self._job is not None:
            self._service.scheduler.cancel(self._job)
        if self._waits:
            self._waits = False
            self._service.started()


def rows_of(continuation: Continuation[Any], tokenizers: Tokenizers, drawn: Drawn) -> Rows | None:
    """Return the pictures so far; None of a request for texts."""
    if continuation.codes_so_far is None:
        return None
    codes, rows = continuation.codes_so_far(drawn.ids)
    pixels, of = tokenizers.decode(codes), tokenizers.grid[0]
    return Rows(rows=rows, of=of, pixels=pixels[:, : pixels.shape[1] * rows // of])
