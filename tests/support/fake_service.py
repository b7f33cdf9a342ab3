"""A service without a model: of the shape that the HTTP layer wants, and told how to behave."""

import asyncio
import base64
import io
import secrets
import threading
import time
from contextlib import contextmanager

import numpy as np
from PIL import Image
from starlette.testclient import TestClient

from cm3leon.serving.asked import (
    Ask,
    Describe,
    Document,
    Documents,
    Full,
    Pictures,
    Progress,
    Rows,
    Stopped,
    Texts,
    Waiting,
)
from cm3leon.serving.limits import Limits
from cm3leon.serving.server import Server, bind
from cm3leon.serving.web import make_app

SIZE, GRID = 32, 4
CAN = ["draw", "describe", "infill", "teach", "vary", "edit", "ask", "boxes", "write", "structure"]


class FakeSession:
    def __init__(self):
        self.token = secrets.token_urlsafe(16)
        self.documents = {}


class FakeSessions:
    """Remembers a session once it was taught something."""

    def __init__(self):
        self.kept = {}

    def of(self, token):
        return self.kept.get(token) or FakeSession()


class FakeService:
    """Answers with pictures of one colour, which its seed chooses."""

    def __init__(self, limits=None, *, can=CAN, pause=0.0, fails=None, after=0):
        self.limits = limits or Limits()
        self.sessions = FakeSessions()
        self.name, self.alive = "fake", True
        self.can, self.pause = can, pause
        self.fails, self.after = fails, after
        """An exception, and the number of events before it."""
        self.asked, self.running, self.cancelled = [], 0, 0
        self.looking = 0
        """Requests for documents, or for what was taught, that go on."""
        self._closed = False
        self.connections = set()
        """Of the server that listens for it."""

    def about(self):
        limits = self.limits
        return {
            "name": self.name,
            "size": SIZE,
            "grid": [GRID, GRID],
            "version": "0.2",
            "can": self.can,
            "structure": ["canny"],
            "samplers": ["top-p", "cd-k", "mixed", "greedy"],
            "defaults": {"candidates": 2, "retrieve": 2, "sampler": "top-p"},
            "limits": {
                "candidates": limits.candidates,
                "prompt_characters": limits.prompt_characters,
                "picture_bytes": limits.picture_bytes,
                "pixels": limits.pixels,
            },
            "examples": ["blue pineapple on yellow"],
            "memory": True,
        }

    def counts(self):
        return {"waiting": 0, "rows": self.running, "sessions": len(self.sessions.kept)}

    def document(self, key=7, caption="a fox", taught=False):
        pixels = np.full((SIZE, SIZE, 3), key % 256, np.uint8)
        return Document(key=key, caption=caption, score=0.5, pixels=pixels, taught=taught)

    async def answer(self, asked, session, *, partial=True):
        if self._closed:
            raise Stopped()
        if self.running >= self.limits.rows:
            raise Full(2.5)
        self.asked.append(asked)
        self.running += 1
        try:
            for number, event in enumerate(self._events(asked, partial)):
                if self.fails is not None and number == self.after:
                    raise self.fails
                await self._rest()
                yield event
        except (asyncio.CancelledError, GeneratorExit):
            self.cancelled += 1
            raise
        finally:
            self.running -= 1

    async def _rest(self):
        end = time.monotonic() + self.pause
        await asyncio.sleep(0)
        while not self._closed and time.monotonic() < end:
            await asyncio.sleep(0.02)
        if self._closed:
            raise Stopped()

    def _events(self, asked, partial):
        count = asked.candidates or 2
        seeds = tuple(asked.seed + n for n in range(count))
        yield Waiting(place=0)
        yield Documents(documents=(self.document(),))
        if isinstance(asked, Ask | Describe):
            yield Progress(done=1, steps=1)
            yield Texts(texts=("a fox",) * count, scores=None)
            return
        pixels = np.stack([np.full((SIZE, SIZE, 3), seed % 256, np.uint8) for seed in seeds])
        for row in range(1, GRID + 1):
            yield Progress(done=row * GRID, steps=GRID * GRID)
            if partial:
                yield Rows(rows=row, of=GRID, pixels=pixels[:, : SIZE * row // GRID])
        shown = {"source": pixels[0]} if hasattr(asked, "picture") else {}
        scores = tuple(0.5 for _ in seeds)
        yield Pictures(pixels=pixels, seeds=seeds, scores=scores, shown=shown)

    async def documents(self, prompt, count, session):
        if self.fails is not None:
            raise self.fails
        await self._look()
        return tuple(self.document(key) for key in range(min(count, 3)))

    async def _look(self):
        self.looking += 1
        try:
            await self._rest()
        finally:
            self.looking -= 1

    async def teach(self, picture, name, session):
        await self._rest()
        if len(session.documents) >= self.limits.taught:
            raise ValueError(f"taught: wanted at most {self.limits.taught} pictures, got one more")
        key = 2**62 + len(session.documents)
        session.documents[key] = self.document(key, name, taught=True)
        self.sessions.kept[session.token] = session
        return session.documents[key]

    async def taught(self, session):
        await self._look()
        return tuple(session.documents.values())

    async def forget(self, key, session):
        await self._look()
        return session.documents.pop(key, None) is not None

    async def close(self):
        self._closed = True


@contextmanager
def serving(service=None, **options):
    """Give an HTTP client of an application in this process."""
    app = make_app(service or FakeService(), **options)
    with TestClient(app, base_url="http://localhost") as client:
        yield client


@contextmanager
def listening(service, **options):
    """Give the port of a real server on the loopback, over an application of the service."""
    bound = bind("127.0.0.1", 0)
    server = Server(make_app(service, **options), service)
    service.connections = server.server_state.connections
    thread = threading.Thread(target=server.run, kwargs={"sockets": [bound]})
    thread.start()
    try:
        until(lambda: server.started)
        yield bound.getsockname()[1]
    finally:
        server.should_exit = True
        thread.join(30)
        assert not thread.is_alive()


def until(true, seconds=20.0):
    """Wait for something to be true."""
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.01)


def file_of(picture=None, kind="PNG", **options):
    """Return the bytes of a picture's file."""
    file = io.BytesIO()
    (picture or Image.new("RGB", (8, 8), "red")).save(file, kind, **options)
    return file.getvalue()


def text_of(content=None):
    """Return base64 of a file, by default a picture's."""
    return base64.b64encode(file_of() if content is None else content).decode()
