"""A service that answers as a run would, without one: what the page's tests talk to."""

import asyncio
import base64
import contextlib
import io
import json
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import uvicorn
from fastapi import FastAPI, Request
from fastapi.responses import FileResponse, JSONResponse, Response, StreamingResponse
from PIL import Image, ImageDraw

from cm3leon.data.palette import PAINTS, PAPERS

SIZE, ROWS = 64, 8
TUNED = ["edit", "ask", "boxes", "write", "structure"]
BASE = ["draw", "describe", "infill", "teach", "vary"]
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


def paint(words: str, seed: int) -> Image.Image:
    """A shape in the words' first colour, on the paper of their last."""
    thing, _, paper = words.partition(" on ")
    colour = next((word for word in thing.split() if word in PAINTS), "grey")
    picture = Image.new("RGB", (SIZE, SIZE), f"#{PAPERS.get(paper.strip(), 'ffffff')}")
    corners, turn, reach = 3 + sum(map(ord, thing.split()[-1] if thing else "")) % 4, seed * 37, 26
    ImageDraw.Draw(picture).regular_polygon(
        (32, 32, reach - seed % 3), corners, turn, f"#{PAINTS[colour][0]}", "black", 2
    )
    return picture


def encoded(picture: Image.Image) -> str:
    file = io.BytesIO()
    picture.save(file, "png")
    return base64.b64encode(file.getvalue()).decode()


def decoded(text: str) -> Image.Image:
    return Image.open(io.BytesIO(base64.b64decode(text.partition(",")[2] or text)))


@dataclass
class FakeService:
    """What tests set of the service, and what it saw."""

    can: list[str] = field(default_factory=lambda: [*BASE, *TUNED])
    examples: list[str] = field(default_factory=lambda: ["blue pineapple on yellow", "red apple"])
    token: str | None = None
    busy: int = 0
    """So many of the next requests are told to come again."""
    refusal: tuple[int, str, str | None] | None = None
    """Status, message and parameter of the next request's error."""
    pause: float = 0.02
    """Seconds between two rows."""
    waiting: tuple[int, ...] = ()
    hold: threading.Event | None = None
    """Rows after the first wait for it."""
    paint: Callable[[str, int], Image.Image] = paint
    seen: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    aborted: list[str] = field(default_factory=list)
    taught: dict[str, dict[str, Any]] = field(default_factory=dict)

    def asked(self, name: str) -> dict[str, Any]:
        """The body of the last request of that name."""
        return [body for path, body in self.seen if path == name][-1]

    def about(self) -> dict[str, Any]:
        return {
            "name": "tiny", "size": SIZE, "grid": [ROWS, ROWS], "version": "0.2", "can": self.can,
            "structure": ["canny", "scribble"], "samplers": ["top-p", "cd-k", "mixed", "greedy"],
            "defaults": {"candidates": 4, "retrieve": 2, "sampler": "top-p",
                         "guidance_scale": 2.0, "temperature": 1.0, "top_p": 0.9},
            "limits": {"candidates": 16, "prompt_characters": 1000, "picture_bytes": 5 * 2**20,
                       "pixels": 16 * 10**6, "boxes": 16, "documents": 8},
            "examples": self.examples, "memory": True,
        }  # fmt: skip

    def document(self, key: str) -> dict[str, Any]:
        if key in self.taught:
            return self.taught[key]
        caption = ["red pineapple on white", "pineapple on green", "yellow apple", "blue pear"]
        words, number = caption[int(key[-1]) % 4], int(key[-1])
        return {"key": key, "caption": words, "score": 0.91 - number / 10,
                "picture": encoded(self.paint(words, number)), "taught": False}  # fmt: skip

    def documents(self, prompt: str, count: int) -> list[dict[str, Any]]:
        known = [key for key, one in self.taught.items() if one["caption"] in prompt]
        keys = [*known, *(f"900719925474099300{n}" for n in range(4))]
        return [self.document(key) for key in keys[:count]]


def event(name: str, data: dict[str, Any]) -> bytes:
    return f"event: {name}\ndata: {json.dumps(data)}\n\n".encode()


def error(status: int, message: str, param: str | None = None, **headers: str) -> JSONResponse:
    code = {401: "invalid_api_key", 429: "busy", 503: "stopped"}.get(status)
    body = {"error": {"message": message, "type": "error", "param": param, "code": code}}
    return JSONResponse(body, status, headers)


async def answer(fake: FakeService, name: str, body: dict[str, Any]) -> AsyncIterator[bytes]:
    """The events of a request, as the service sends them."""
    try:
        for place in fake.waiting:
            yield event("waiting", {"place": place})
            await asyncio.sleep(fake.pause)
        words = body.get("prompt") or body.get("instruction") or body.get("text") or "grey thing"
        if name in ("draw", "describe", "infill"):
            keys = body.get("documents")
            found = (fake.documents(words, body.get("retrieve", 2)) if keys is None
                     else [fake.document(key) for key in keys])  # fmt: skip
            yield event("documents", {"documents": found})
        if name == "ask":
            yield event("texts", {"texts": [{"text": "it is blue", "score": None}]})
            return
        count, seed = body.get("candidates", 4), body.get("seed", 0)
        if name == "describe":
            for done in range(0, 12, 4):
                yield event("progress", {"done": done, "steps": 12})
                await asyncio.sleep(fake.pause)
            said = ["<b>blue</b> pear on green", "a blue pear", "pear on green", "a fruit"]
            texts = [{"text": said[n % 4], "score": 0.4 - n / 20} for n in range(count)]
            yield event("texts", {"texts": texts})
            return
        drawn = [fake.paint(words, seed + n) for n in range(count)]
        for row in range(1, ROWS + 1):
            yield event("progress", {"done": row * ROWS, "steps": ROWS * ROWS})
            upper = [encoded(one.crop((0, 0, SIZE, SIZE * row // ROWS))) for one in drawn]
            yield event("rows", {"rows": row, "of": ROWS, "pictures": upper})
            while fake.hold and not fake.hold.is_set():
                await asyncio.sleep(0.01)
            await asyncio.sleep(fake.pause)
        final = [{"picture": encoded(one), "seed": seed + n, "score": 0.2 + n / 50}
                 for n, one in enumerate(drawn)][::-1]  # fmt: skip
        shown = {"source": encoded(decoded(body["picture"]))} if "picture" in body else {}
        yield event("pictures", {"pictures": final, "shown": shown})
    except asyncio.CancelledError:
        fake.aborted.append(name)
        raise


def make_app(fake: FakeService, page: Path) -> FastAPI:
    app = FastAPI(openapi_url=None)

    @app.middleware("http")
    async def guarded(request: Request, go_on: Callable) -> Response:
        if request.url.path.startswith("/api") and fake.token is not None:
            if request.headers.get("authorization") != f"Bearer {fake.token}":
                return error(401, "a token is wanted")
        reply = await go_on(request)
        reply.headers["Content-Security-Policy"] = POLICY
        reply.headers["Cache-Control"] = "no-store"
        return reply

    @app.get("/")
    def index() -> FileResponse:
        return FileResponse(page / "index.html")

    @app.get("/static/{name}")
    def static(name: str) -> FileResponse:
        types = {".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml"}
        return FileResponse(page / name, media_type=types[Path(name).suffix])

    @app.get("/api/run")
    def about() -> dict[str, Any]:
        return fake.about()

    @app.post("/api/documents")
    async def documents(request: Request) -> dict[str, Any]:
        body = await request.json()
        fake.seen.append(("documents", body))
        return {"documents": fake.documents(body["prompt"], body["count"])}

    @app.get("/api/taught")
    def taught() -> dict[str, Any]:
        return {"taught": list(fake.taught.values())}

    @app.post("/api/taught", status_code=201)
    async def teach(request: Request) -> dict[str, Any]:
        body = await request.json()
        fake.seen.append(("taught", body))
        key = str(9223372036854775000 + len(fake.taught))
        fake.taught[key] = {"key": key, "caption": body["name"], "score": 1.0, "taught": True,
                            "picture": encoded(decoded(body["picture"]).resize((SIZE, SIZE))),
        }  # fmt: skip
        return fake.taught[key]

    @app.delete("/api/taught/{key}", status_code=204)
    def forget(key: str) -> None:
        del fake.taught[key]

    @app.post("/api/{name}")
    async def ask(name: str, request: Request) -> Response:
        body = await request.json()
        fake.seen.append((name, body))
        if fake.busy:
            fake.busy -= 1
            return error(429, "busy: come again in 1 s", **{"Retry-After": "1"})
        if fake.refusal:
            refusal, fake.refusal = fake.refusal, None
            return error(*refusal)
        return StreamingResponse(answer(fake, name, body), media_type="text/event-stream")

    return app


@contextlib.contextmanager
def serve(fake: FakeService, page: Path, port: int = 0) -> Iterator[str]:
    """Serve in a thread; gives the address."""
    config = uvicorn.Config(
        make_app(fake, page), port=port, log_level="error", lifespan="off", ws="none"
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        while not server.started:
            time.sleep(0.01)
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}/"
    finally:
        server.should_exit = True
        thread.join()
