"""A run that answers many users at once: requests in, events out.

The event loop only waits. The scheduler's thread owns the decoder; one more thread reads pictures,
finds documents, and makes pictures of codes.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import AsyncGenerator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

from PIL.Image import Image

from cm3leon import VERSION
from cm3leon.drawing import teach
from cm3leon.parts import Parts, open_parts
from cm3leon.serving.asked import (
    Asked,
    Document,
    Event,
    Full,
    Late,
    Stopped,
    Vary,
)
from cm3leon.serving.documents import documents_of, examples_of, found_for
from cm3leon.serving.limits import DOCUMENTS, Limits
from cm3leon.serving.preparing import CANDIDATES
from cm3leon.serving.request import Request
from cm3leon.serving.scheduler import (
    Scheduler,
)
from cm3leon.serving.sessions import Session, Sessions
from cm3leon.tuned import ANSWERED, TASKS_FILE, Tuned, open_tuned

Made = TypeVar("Made")


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
        self._parts, self.tuned = parts, tuned
        self.scheduler = Scheduler(parts.model, parts.device, limits.rows)
        self._hands = ThreadPoolExecutor(1, thread_name_prefix="hands")
        self._examples = examples_of(parts)
        self._waiting = 0
        self._typical_seconds = 1.0

    @property
    def alive(self) -> bool:
        """Whether it answers."""
        return self.scheduler.alive and not self.scheduler.broken

    def counts(self) -> dict[str, int]:
        """Return the numbers of requests that wait, rows that are drawn, and sessions kept."""
        rows, sessions = self.scheduler.rows, len(self.sessions)
        return {"waiting": self._waiting, "rows": rows, "sessions": sessions}

    def about(self) -> dict[str, Any]:
        """Return what the run can do, and what is allowed; JSON."""
        parts, tasks = self._parts, () if self.tuned is None else self.tuned.tasks
        features = [] if self.tuned is None else self.tuned.features
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
            Stopped: The service ends.
            Broken: The model failed.
        """
        deadline = time.monotonic() + self.limits.seconds
        if isinstance(asked, Vary) and asked.prompt is None:
            with self._counted(deadline) as request:
                asked = replace(asked, prompt=await request.caption(asked, session))
        # who wanted a caption first waits again
        with self._counted(deadline) as request:
            async for event in request.answer(asked, session, partial):
                yield event

    @contextmanager
    def _counted(self, deadline: float) -> Iterator[Request]:
        """Count a request that waits, if there is room; it is cancelled where it is left."""
        if self._waiting >= self.limits.waiting:
            raise Full(math.ceil(self._typical_seconds))
        self._waiting += 1
        request = Request(self, deadline)
        try:
            yield request
        finally:
            request.end()

    async def documents(self, prompt: str, count: int, session: Session) -> tuple[Document, ...]:
        """Return what is retrieved for a prompt, the best first."""

        def find() -> tuple[Document, ...]:
            keys, vector = found_for(session.parts, prompt, count)
            return documents_of(session.parts, keys, vector)

        return await self._soon(find)

    async def teach(self, picture: Image, name: str, session: Session) -> Document:
        """Put a picture into a session's memory, or make it the latest there.

        Raises:
            ValueError: The session has no room, the name is none, or the run has no memory.
        """

        def learn() -> Document:
            # the one thread does one thing at a time: no request of the session overtakes another
            parts = teach.learn(session.parts, picture, name)
            key = parts.memory.taught[-1].key
            (document,) = documents_of(parts, [key], None)
            taught = {**session.taught}
            taught.pop(key, None)
            if all(one.key != key for one in self._parts.memory.taught):
                taught[key] = document
            if len(taught) > (most := self.limits.taught):
                raise ValueError(f"picture: wanted at most {most} of a session, got one more")
            session.parts, session.taught = parts, taught
            return document

        document = await self._soon(learn)
        self.sessions.keep(session)
        return document

    async def taught(self, session: Session) -> tuple[Document, ...]:
        """Return what a session was taught, the latest first."""
        return tuple(reversed([*session.taught.values()]))

    async def forget(self, key: int, session: Session) -> bool:
        """Remove a document from a session's memory; tell whether it was there."""
        if key not in session.taught:
            return False

        def remove() -> bool:
            left = {**session.taught}
            if left.pop(key, None) is None:
                return False
            session.parts, session.taught = teach.forget(session.parts, key), left
            return True

        return await self._soon(remove)

    async def close(self) -> None:
        """End: running requests fail with `Stopped`."""
        await asyncio.to_thread(self.scheduler.close)
        # who waits for these hands is told so by `by_hand`, at once
        await asyncio.to_thread(self._hands.shutdown)

    async def _soon(self, work: Callable[[], Made]) -> Made:
        """Run `work` as `by_hand` does, within the time of one request."""
        return await self.by_hand(work, time.monotonic() + self.limits.seconds)

    async def by_hand(self, work: Callable[[], Made], deadline: float) -> Made:
        """Run `work` outside of the event loop.

        Raises:
            Late: It has not ended at `deadline`, of `time.monotonic`.
            Stopped: The service ends.
        """

        def unless_it_ends() -> Made:
            if not self.scheduler.alive:
                raise Stopped("the service ends")
            return work()

        try:
            waited = asyncio.get_running_loop().run_in_executor(self._hands, unless_it_ends)
        except RuntimeError as error:  # it takes nothing more
            raise Stopped("the service ends") from error
        try:
            return await asyncio.wait_for(waited, deadline - time.monotonic())
        except TimeoutError as error:
            raise Late(f"wanted an answer within {self.limits.seconds:g} s") from error

    def started(self) -> None:
        """Count a request that waits no longer."""
        self._waiting -= 1

    def took(self, seconds: float) -> None:
        """Learn how long a request takes to draw, to say when to come again."""
        self._typical_seconds += 0.2 * (seconds - self._typical_seconds)


def open_service(
    run: Path,
    device: str = "auto",
    limits: Limits | None = None,
    *,
    dtype: str | None = None,
    trust: bool = False,
) -> Service:
    """Open a finished run for requests; arguments and errors as of `parts.open_parts`."""
    parts = teach.recall(open_parts(run, device, dtype=dtype, trust=trust), run)
    name = run.resolve().name
    tuned = None
    if (run / "decoder" / TASKS_FILE).is_file():
        tuned = open_tuned(run)
        # what it says to users names no folder of this machine
        recipe = replace(tuned.recipe, runs=Path(), name=name)
        tuned = replace(tuned, folder=Path("run"), recipe=recipe)
    return Service(name, parts, tuned, limits or Limits())
