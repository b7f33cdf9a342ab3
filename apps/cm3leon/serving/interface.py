"""What the HTTP layer needs of a service: it knows no model, and its tests start without one."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Any, Protocol

from PIL.Image import Image

from cm3leon.serving.asked import Asked, Document, Event
from cm3leon.serving.limits import Limits


class Session(Protocol):
    """What was taught by one client; opaque but for its token."""

    @property
    def token(self) -> str:
        """What the client shows to come back to it."""
        ...


class Sessions(Protocol):
    """The sessions of all clients."""

    def of(self, token: str | None) -> Session:
        """Return the session of a token; a new one where there is none."""
        ...


class Service(Protocol):
    """A run that answers what is asked of it."""

    @property
    def limits(self) -> Limits:
        """Its bounds."""
        ...

    @property
    def sessions(self) -> Sessions:
        """Who has taught what."""
        ...

    @property
    def name(self) -> str:
        """The run's name."""
        ...

    @property
    def alive(self) -> bool:
        """Whether it can still draw."""
        ...

    def about(self) -> dict[str, Any]:
        """Return what `GET /api/run` says."""
        ...

    def counts(self) -> dict[str, int]:
        """Return the numbers of waiting requests, of rows being drawn, and of sessions."""
        ...

    def answer(
        self, asked: Asked, session: Any, *, partial: bool = True
    ) -> AsyncGenerator[Event, None]:
        """Give events, the last of them the answer; closing the generator cancels the work.

        Args:
            asked: The request.
            session: Whose memory is used.
            partial: Whether pictures are shown while they are drawn.

        Raises:
            ValueError: It asks for what cannot be; names the parameter, and a colon follows.
            Full: Too much waits; before the first event.
            Late: It took too long.
            Stopped: The service ends.
            Broken: The model failed.
        """
        ...

    async def documents(self, prompt: str, count: int, session: Any) -> tuple[Document, ...]:
        """Return what would stand before a prompt, the best first; raises as `answer` does."""
        ...

    async def teach(self, picture: Image, name: str, session: Any) -> Document:
        """Remember a picture of a new thing in a session; raises as `answer` does."""
        ...

    async def taught(self, session: Any) -> tuple[Document, ...]:
        """Return what a session was taught."""
        ...

    async def forget(self, key: int, session: Any) -> bool:
        """Forget a taught document; False if the session has none of that key."""
        ...

    async def close(self) -> None:
        """Refuse what comes, and cancel what runs."""
        ...
