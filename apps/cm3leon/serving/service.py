"""A run that answers many users at once: requests in, events out.

The event loop only waits. The scheduler's thread owns the decoder; one more thread reads pictures,
finds documents, and makes pictures of codes.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import AsyncGenerator, Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from PIL.Image import Image

from cm3_decoding import max_new_tokens
from cm3leon import VERSION
from cm3leon.drawing import describe, teach
from cm3leon.drawing.records import ANSWERED
from cm3leon.instructions.features import NAMES
from cm3leon.parts import Parts, open_parts
from cm3leon.serving.asked import (
    Asked,
    Describe,
    Document,
    Documents,
    Event,
    Full,
    Late,
    Progress,
    Rows,
    Stopped,
    Texts,
    Vary,
    Waiting,
)
from cm3leon.serving.limits import Limits
from cm3leon.serving.preparing import (
    CANDIDATES,
    Prepared,
    documents_of,
    found_for,
    prepare,
)
from cm3leon.serving.scheduler import (
    Drawn,
    Failed,
    Finished,
    Job,
    Place,
    Report,
    Scheduler,
    Started,
)
from cm3leon.serving.sessions import Session, Sessions
from cm3leon.tuned import TASKS_FILE, Tuned, open_tuned

Made = TypeVar("Made")

EXAMPLES = 6
"""Captions of the run's own documents that a page shows as examples."""
EXAMINED = 64
"""Documents among which they are looked for."""
TEXT_STEPS = 8
"""New ids of a text between two events of progress."""
DOCUMENTS = 8
"""Most documents that are looked for."""


class Service:
    """One run, open for requests."""

    def __init__(self, name: str, parts: Parts, tuned: Tuned | None, limits: Limits) -> None:
        """Start to draw.

        Args:
            name: The run's.
            parts: The run's.
            tuned: What it was tuned on, if it was.
            limits: What is allowed.
        """
        self.name, self.limits = name, limits
        self.sessions = Sessions(parts, limits)
        self._parts, self._tuned = parts, tuned
        self._scheduler = Scheduler(parts.model, parts.device, limits.rows)
        self._hands = ThreadPoolExecutor(1, thread_name_prefix="hands")
        self._examples = examples_of(parts)
        self._waiting = 0
        self._typical_seconds = 1.0

    @property
    def alive(self) -> bool:
        """Whether it answers."""
        return self._scheduler.alive

    def counts(self) -> dict[str, int]:
        """Return the numbers of requests that wait, rows that are drawn, and sessions kept."""
        rows, sessions = self._scheduler.rows, len(self.sessions)
        return {"waiting": self._waiting, "rows": rows, "sessions": sessions}

    def about(self) -> dict[str, Any]:
        """Return what the run can do, and what is allowed; JSON."""
        parts, tasks = self._parts, () if self._tuned is None else self._tuned.tasks
        features = [name for name in NAMES if name in tasks]
        has_memory = parts.retrieval is not None
        can = ["describe"]
        if parts.tokenizers.draws:
            can += ["draw", "infill"]
            can += ["teach", "vary"] if has_memory else []
            can += [name for name in ("edit", "boxes", "write") if name in tasks]
            can += ["structure"] if features else []
        can += ["ask"] if set(ANSWERED["ask"]) & set(tasks) else []
        config = parts.habits.samplers[0]
        return {
            "name": self.name,
            "version": VERSION,
            "size": parts.tokenizers.size,
            "grid": list(parts.tokenizers.grid),
            "memory": has_memory,
            "can": can,
            "structure": features,
            "samplers": ["top-p", "cd-k", "mixed", "greedy"],
            "defaults": {
                "candidates": min(CANDIDATES, self.limits.candidates),
                "retrieve": parts.habits.retrieve if has_memory else 0,
                "sampler": "mixed" if len(parts.habits.samplers) > 1 else config.sampler,
                "guidance_scale": config.guidance_scale,
                "temperature": config.temperature,
                "top_p": config.top_p,
            },
            "limits": {
                "candidates": self.limits.candidates,
                "prompt_characters": self.limits.prompt_characters,
                "picture_bytes": self.limits.picture_bytes,
                "pixels": self.limits.pixels,
                "boxes": self.limits.boxes,
                "documents": DOCUMENTS,
            },
            "examples": self._examples,
        }

    async def answer(
        self, asked: Asked, session: Session, *, partial: bool = True
    ) -> AsyncGenerator[Event, None]:
        """Yield what happens to a request; the last event is `Pictures` or `Texts`.

        Closing the generator, or cancelling who waits for it, cancels the work.

        Args:
            asked: The request.
            session: Whose memory is used.
            partial: Whether pictures are shown while they are drawn.

        Raises:
            Full: Too many requests wait; before any event.
            ValueError: It cannot be done; the message starts with the parameter's name.
            Late: It took longer than allowed.
            Stopped: The service ends, or the model failed.
        """
        if self._waiting >= self.limits.waiting:
            raise Full(math.ceil(self._typical_seconds))
        self._waiting += 1
        request = _Request(self, time.monotonic() + self.limits.seconds)
        try:
            if isinstance(asked, Vary) and asked.prompt is None:
                asked = replace(asked, prompt=await request.caption(asked, session))
            async for event in request.answer(asked, session, partial):
                yield event
        finally:
            request.end()

    async def documents(self, prompt: str, count: int, session: Session) -> tuple[Document, ...]:
        """Return what is retrieved for a prompt, the best first."""

        def find() -> tuple[Document, ...]:
            keys, vector = found_for(session.parts, prompt, count)
            return documents_of(session.parts, keys, vector)

        return await self.by_hand(find, time.monotonic() + self.limits.seconds)

    async def teach(self, picture: Image, name: str, session: Session) -> Document:
        """Put a picture into a session's memory.

        Raises:
            ValueError: The session has no room, the name is none, or the run has no memory.
        """
        most, known = self.limits.taught, len(self.taught_keys(session))
        if known >= most:
            raise ValueError(f"picture: wanted at most {most} of a session, got one more")
        learnt = await self.by_hand(
            lambda: teach.learn(session.parts, picture, name),
            time.monotonic() + self.limits.seconds,
        )
        # another request of the session may have come first: learn both
        if len(self.taught_keys(session)) != known:
            learnt = teach.learn(session.parts, picture, name)
        session.parts = learnt
        self.sessions.keep(session)
        return (await self.taught(session))[0]

    async def taught(self, session: Session) -> tuple[Document, ...]:
        """Return what a session was taught, the latest first."""
        parts, keys = session.parts, self.taught_keys(session)
        return await self.by_hand(
            lambda: documents_of(parts, keys, None), time.monotonic() + self.limits.seconds
        )

    def taught_keys(self, session: Session) -> list[int]:
        """Return the keys of what a session was taught, beside what the run itself was."""
        if session.parts.retrieval is None:
            return []
        own = {one.key for one in self._parts.memory.taught}
        return [one.key for one in session.parts.memory.taught if one.key not in own]

    def forget(self, key: int, session: Session) -> bool:
        """Remove a document from a session's memory; tell whether it was there."""
        if key not in self.taught_keys(session):
            return False
        session.parts = teach.forget(session.parts, key)
        return True

    async def close(self) -> None:
        """End: running requests fail with `Stopped`."""
        await asyncio.to_thread(self._scheduler.close)
        self._hands.shutdown(wait=True, cancel_futures=True)

    async def by_hand(self, work: Callable[[], Made], deadline: float) -> Made:
        """Run `work` outside of the event loop.

        Raises:
            Late: It has not ended at `deadline`, of `time.monotonic`.
            Stopped: The service ends.
        """
        try:
            waited = asyncio.get_running_loop().run_in_executor(self._hands, work)
        except RuntimeError as error:  # it takes nothing more
            raise Stopped("the service ends") from error
        try:
            return await asyncio.wait_for(waited, deadline - time.monotonic())
        except TimeoutError as error:
            raise Late(f"wanted an answer within {self.limits.seconds:g} s") from error
        except KeyError as error:
            raise ValueError(f"{error}") from error

    def prepare(self, asked: Asked, session: Session) -> Prepared:
        """Make a request ready; errors as of `preparing.prepare`."""
        return prepare(asked, session.parts, self._tuned)

    def started(self) -> None:
        """Count a request that waits no longer."""
        self._waiting -= 1

    def took(self, seconds: float) -> None:
        """Learn how long a request takes to draw, to say when to come again."""
        self._typical_seconds += 0.2 * (seconds - self._typical_seconds)

    def submit(self, prepared: Prepared, report: Callable[[Report], None], every: int) -> Job:
        """Let the scheduler draw."""
        return self._scheduler.submit(prepared.continuation.rows, report, every)

    def cancel(self, job: Job) -> None:
        """Let the scheduler stop drawing."""
        self._scheduler.cancel(job)

    def rows_of(self, prepared: Prepared, drawn: Drawn) -> Rows | None:
        """Return the pictures so far; None of a request for texts."""
        if prepared.continuation.codes_so_far is None:
            return None
        codes, rows = prepared.continuation.codes_so_far(drawn.ids)
        pixels, of = self._parts.tokenizers.decode(codes), self._parts.tokenizers.grid[0]
        return Rows(rows=rows, of=of, pixels=pixels[:, : pixels.shape[1] * rows // of])

    def every(self, prepared: Prepared) -> int:
        """Return the new ids between two reports."""
        is_text = prepared.continuation.codes_so_far is None
        return TEXT_STEPS if is_text else self._parts.tokenizers.grid[1]


class _Request:
    """One request on its way."""

    def __init__(self, service: Service, deadline: float) -> None:
        self._service, self._deadline = service, deadline
        self._job: Job | None = None
        self._waits = True
        self._since = 0.0

    async def caption(self, asked: Vary, session: Session) -> str:
        """Return what a picture shows."""
        seen = Describe(picture=asked.picture, candidates=1, seed=asked.seed)
        async for event in self.answer(seen, session, partial=False):
            if isinstance(event, Texts):
                return event.texts[0] or "picture"
        raise Stopped("the service ends")

    async def answer(
        self, asked: Asked, session: Session, partial: bool
    ) -> AsyncGenerator[Event, None]:
        """Yield the events of one thing that is drawn or written."""
        service = self._service
        prepared = await service.by_hand(lambda: service.prepare(asked, session), self._deadline)
        if prepared.documents:
            yield Documents(documents=prepared.documents)
        reports: asyncio.Queue[Report] = asyncio.Queue()
        loop = asyncio.get_running_loop()

        def report(one: Report) -> None:
            if not loop.is_closed():
                loop.call_soon_threadsafe(reports.put_nowait, one)

        self._job = service.submit(prepared, report, service.every(prepared))
        steps = max(max_new_tokens(row.segments) for row in prepared.continuation.rows)
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
                        rows = await service.by_hand(
                            lambda drawn=drawn: service.rows_of(prepared, drawn), self._deadline
                        )
                        if rows is not None and rows.rows and reports.empty():
                            yield rows
                case Finished(ids=ids):
                    self._job = None
                    service.took(time.monotonic() - self._since)
                    yield await service.by_hand(
                        lambda: prepared.last_event(prepared.continuation.finish(ids)),
                        self._deadline,
                    )
                    return
                case Failed(error=error):
                    self._job = None
                    if isinstance(error, ValueError):  # rows have prompts, a request has one
                        raise ValueError(str(error).replace("prompts:", "prompt:", 1)) from error
                    if isinstance(error, Stopped):
                        raise error
                    raise Stopped("the model failed") from error

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
            self._service.cancel(self._job)
        if self._waits:
            self._waits = False
            self._service.started()


def open_service(
    run: Path, device: str = "auto", limits: Limits | None = None, *, trust: bool = False
) -> Service:
    """Open a finished run for requests; arguments and errors as of `parts.open_parts`."""
    parts, name = teach.recall(open_parts(run, device, trust=trust), run), run.resolve().name
    tuned = None
    if (run / "decoder" / TASKS_FILE).is_file():
        tuned = open_tuned(run)
        # what it says to users names no folder of this machine
        recipe = replace(tuned.recipe, runs=Path(), name=name)
        tuned = replace(tuned, folder=Path(name), recipe=recipe)
    return Service(name, parts, tuned, limits or Limits())


def examples_of(parts: Parts) -> list[str]:
    """Return captions of documents that the CLIP knows well, so that they are drawn well."""
    if parts.retrieval is None:
        return []
    memory = parts.memory
    keys = memory.bank.keys
    keys = keys[:: max(1, len(keys) // EXAMINED)].tolist()
    captions = [describe.plain(memory.documents.caption(key)) for key in keys]
    vectors = parts.encoder.encode_texts(captions)
    scores = np.einsum("nd,nd->n", vectors, memory.bank.vectors_of(keys))
    ordered = (captions[place] for place in describe.best_first(scores))
    return list(dict.fromkeys(ordered))[:EXAMPLES]
