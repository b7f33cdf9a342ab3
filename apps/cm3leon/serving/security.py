"""What stands before the endpoints: who may ask, how much may come in, and what every answer says.

Plain ASGI layers, from the outside: `Boundary`, `Door`, `Intake`.
"""

from __future__ import annotations

import asyncio
import hmac
import ipaddress
import re
import time
from collections.abc import Awaitable, Callable

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from cm3leon.serving.answering import problem_of
from cm3leon.serving.asked import Full
from cm3leon.serving.metrics import Metrics
from cm3leon.serving.refusals import Refused

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; "
    "connect-src 'self'; font-src 'self'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'"
)
HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=(), payment=(), usb=()",
    "X-Frame-Options": "DENY",
    "Cache-Control": "no-store",
}
"""Headers of every answer that does not set them itself."""
LOOPBACK = ("localhost", "127.0.0.1", "[::1]")
_OPEN = re.compile(r"/|/healthz|/static/[^/]*")
_HOST = re.compile(r"(\[[0-9a-f:.]+\]|[^:\[\]@/]+)(?::[0-9]{1,5})?")


def named(host: str) -> str:
    """Return a name or an address as `Host` should have it: one spelling, IPv6 in brackets."""
    try:
        address = ipaddress.ip_address(host.removeprefix("[").removesuffix("]"))
    except ValueError:
        return host.lower()
    return f"[{address}]" if address.version == 6 else str(address)


class Boundary:
    """The outermost layer: headers and figures of every answer, and errors without traces."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        """Wrap an application."""
        self._app, self._metrics = app, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        begun, status = time.perf_counter(), 0

        async def answer(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        try:
            await self._app(scope, receive, answer)
        except Exception as error:
            refused = problem_of(error)
            if refused.status == 499:
                self._metrics.cancelled()
            else:
                self._metrics.refused(refused.code)
            if not status:
                await refused.response(scope["path"])(scope, receive, answer)
        finally:
            route = getattr(scope.get("route"), "path", "none")
            self._metrics.answered(route, status, time.perf_counter() - begun)


class Door:
    """Lets in what comes under our name, from our own page or from no page, with the token."""

    def __init__(self, app: ASGIApp, hosts: frozenset[str], token: str | None) -> None:
        """Wrap an application.

        Args:
            app: What is behind the door.
            hosts: Names that the service has, as of `named`; one that resolves here by a trick is
                not among them.
            token: What a client has to show, or None.
        """
        self._app, self._hosts = app, hosts
        self._token = None if token is None else token.encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer."""
        if scope["type"] == "http":
            self._check(Headers(scope=scope), scope["path"])
        await self._app(scope, receive, send)

    def _check(self, headers: Headers, path: str) -> None:
        host = headers.get("host", "").lower()
        found = _HOST.fullmatch(host)
        if not found or named(found[1]) not in self._hosts:
            raise Refused(400, "unknown_host", "Host: wanted a name of this service")
        origin = headers.get("origin")
        if origin is not None and origin.lower() not in (f"http://{host}", f"https://{host}"):
            raise Refused(403, "other_origin", "Origin: wanted this service's own page, or none")
        if self._token is None or _OPEN.fullmatch(path):
            return
        scheme, _, given = headers.get("authorization", "").partition(" ")
        # headers are bytes that Starlette reads as latin-1
        right = hmac.compare_digest(given.encode("latin-1"), self._token)
        if scheme.lower() != "bearer" or not right:
            raise Refused(
                401,
                "invalid_api_key",
                "Authorization: wanted Bearer and this service's token",
                headers={"WWW-Authenticate": "Bearer"},
            )


class Intake:
    """Reads each body whole before anything is done for it: so many bytes, seconds and requests."""

    def __init__(self, app: ASGIApp, body_bytes: int, requests: int, seconds: float) -> None:
        """Wrap an application.

        Args:
            app: What gets the bodies.
            body_bytes: Most bytes of one; all together have at most `requests` times as many.
            requests: Most requests that are being answered, of those that have a body.
            seconds: The longest that one may take to come in.
        """
        self._app, self._bytes, self._requests = app, body_bytes, requests
        self._seconds, self._inside, self._held = seconds, 0, 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        if scope["method"] != "POST":
            self._check_none(scope)
            await self._app(scope, receive, send)
            return
        body = await self._read(scope, receive)
        try:
            # who is slow to send takes nobody's place
            if self._inside >= self._requests:
                raise Full(1.0)
            self._inside += 1
            try:
                await self._app(scope, _replayed(body, receive), send)
            finally:
                self._inside -= 1
        finally:
            self._held -= len(body)

    def _check_none(self, scope: Scope) -> None:
        """Refuse the body of a request that is not to have one."""
        headers = Headers(scope=scope)
        if headers.get("content-length", "0") != "0" or "transfer-encoding" in headers:
            text = f"body: wanted none with {scope['method'][:40]}, got one"
            raise Refused(413, "body_too_large", text)

    async def _read(self, scope: Scope, receive: Receive) -> bytes:
        """Read a body, whose bytes are held from now on."""
        length = Headers(scope=scope).get("content-length", "")
        if length.isdecimal() and int(length[:20]) > self._bytes:
            raise self._too_large()
        body, more = bytearray(), True
        try:
            async with asyncio.timeout(self._seconds):
                while more:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        raise Refused(499, "gone", "the client went away")
                    part = message.get("body", b"")
                    more = message.get("more_body", False)
                    if len(body) + len(part) > self._bytes:
                        raise self._too_large()
                    if self._held + len(part) > self._bytes * self._requests:
                        raise Full(1.0)
                    body += part
                    self._held += len(part)
        except BaseException as error:
            self._held -= len(body)
            if not isinstance(error, TimeoutError):
                raise
            text = f"body: wanted all of it within {self._seconds:g} s"
            raise Refused(408, "slow_body", text, headers={"Connection": "close"}) from None
        return bytes(body)

    def _too_large(self) -> Refused:
        return Refused(413, "body_too_large", f"body: wanted at most {self._bytes} bytes, got more")


def _replayed(body: bytes, receive: Receive) -> Receive:
    """Return a `receive` that has a body in one piece."""
    whole: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def replayed() -> Message:
        return whole.pop() if whole else await receive()

    return replayed


def wants(media_type: str) -> Callable[[Request], Awaitable[None]]:
    """Return a dependency that refuses bodies of another media type.

    A page elsewhere can make a browser send a form or a plain text here, but not JSON.
    """

    async def check(request: Request) -> None:
        given = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if given != media_type:
            text = f"Content-Type: wanted {media_type}, got {given[:40]!r}"
            raise Refused(415, "media_type", text)

    return check


def set_session(response: Response, cookie: str, token: str, *, secure: bool) -> None:
    """Give a browser its session, under the name of the service's cookie."""
    response.set_cookie(cookie, token, httponly=True, samesite="strict", path="/", secure=secure)
