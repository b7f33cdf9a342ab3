"""The server: uvicorn over the application, and an end that leaves no client hanging."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Iterable

import h11
import uvicorn
from fastapi import FastAPI
from uvicorn.protocols.http.h11_impl import H11Protocol

from cm3leon.serving.interface import Service
from cm3leon.serving.security import named
from cm3leon.serving.web import make_app

CONNECTIONS = 256
"""Connections beyond those of requests that draw or wait: pages, looks at the health, idle ones."""
KEEP_ALIVE = 15
HEAD_SECONDS = 15.0
"""Time in which the head of a request has to come in, or the rest of a body that nobody reads."""
SENT_SECONDS = 60.0
"""Time in which a client has to take what was sent to it."""
GRACE = 10
"""Seconds that answers have to end after the service has."""


class Connection(H11Protocol):
    """A connection that is closed when its client neither sends nor takes what it has to."""

    _silent: asyncio.TimerHandle | None = None
    """Closes it where a client sends nothing."""
    _stuck: asyncio.TimerHandle | None = None
    """Ends it where a client takes nothing."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Wait for the first request."""
        # writing is paused whenever something is left to send: also of what is being closed
        transport.set_write_buffer_limits(high=0)
        super().connection_made(transport)
        self._wait()

    def data_received(self, data: bytes) -> None:
        """Take in what came."""
        super().data_received(data)
        self._wait()

    def on_response_complete(self) -> None:
        """Wait for the next request."""
        super().on_response_complete()
        self._wait()

    def pause_writing(self) -> None:
        """Wait for the client to take what was sent."""
        super().pause_writing()
        self._stuck = self.loop.call_later(SENT_SECONDS, self.transport.abort)

    def resume_writing(self) -> None:
        """Go on to send."""
        super().resume_writing()
        self._stuck = _cancelled(self._stuck)

    def connection_lost(self, exc: Exception | None) -> None:
        """Wait no more."""
        super().connection_lost(exc)
        self._silent = _cancelled(self._silent)
        self._stuck = _cancelled(self._stuck)

    def _waits(self) -> bool:
        """Tell whether the client has to send something before anything else can happen."""
        left = self.conn.their_state is h11.SEND_BODY and self.conn.our_state is h11.DONE
        return left or self.conn.their_state is h11.IDLE

    def _wait(self) -> None:
        if not self._waits():
            self._silent = _cancelled(self._silent)
        elif self._silent is None:
            self._silent = self.loop.call_later(HEAD_SECONDS, self._close)

    def _close(self) -> None:
        self._silent = None
        if self._waits():
            self.transport.close()


def _cancelled(timer: asyncio.TimerHandle | None) -> None:
    if timer is not None:
        timer.cancel()


class Server(uvicorn.Server):
    """A server that ends its service with itself."""

    def __init__(
        self, app: FastAPI, service: Service, announce: Callable[[], None] = lambda: None
    ) -> None:
        """Make one.

        Args:
            app: What answers.
            service: Closed when the server ends, so that what runs ends with an error.
            announce: Called once clients can come.
        """
        limits = service.limits
        config = uvicorn.Config(
            app,
            http=Connection,
            loop="asyncio",
            ws="none",
            lifespan="on",
            log_config=None,
            access_log=False,
            server_header=False,
            timeout_keep_alive=KEEP_ALIVE,
            timeout_graceful_shutdown=GRACE,
            limit_concurrency=limits.waiting + limits.rows + CONNECTIONS,
        )
        super().__init__(config)
        self._service, self._announce = service, announce

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Begin to listen."""
        await super().startup(sockets)
        if self.started:
            self._announce()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Let nobody in any more, end what runs, and wait for the answers."""
        closing = asyncio.ensure_future(self._service.close())
        await super().shutdown(sockets)
        await closing


def bind(host: str, port: int) -> socket.socket:
    """Return a socket of an address; taken before a model is loaded for nothing.

    Raises:
        OSError: The address is not ours, or not free.
    """
    bound: socket.socket | None = None
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        family, kind, protocol, _, address = found[0]
        bound = socket.socket(family, kind, protocol)
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind(address)
    except OSError as error:
        if bound is not None:
            bound.close()
        raise OSError(f"{host} port {port}: {error.strerror}") from None
    return bound


def url_of(bound: socket.socket, host: str) -> str:
    """Return where a browser finds a server."""
    return f"http://{named(host)}:{bound.getsockname()[1]}"


def serve(
    service: Service,
    bound: socket.socket,
    *,
    hosts: Iterable[str] = (),
    token: str | None = None,
    announce: Callable[[], None] = lambda: None,
) -> None:
    """Serve until a signal ends it.

    Args:
        service: What answers; closed at the end.
        bound: Where clients come.
        hosts: As of `make_app`.
        token: As of `make_app`.
        announce: Called once clients can come.
    """
    app = make_app(service, hosts=hosts, token=token)
    Server(app, service, announce).run(sockets=[bound])
