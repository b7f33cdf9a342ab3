"""What was taught in a session: documents that no other session sees, in memory alone."""

from __future__ import annotations

import secrets
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from cm3leon.parts import Parts
from cm3leon.serving.asked import Document
from cm3leon.serving.limits import Limits


@dataclass(eq=False, kw_only=True)
class Session:
    """One user's parts: the run's, and what was taught."""

    token: str
    parts: Parts
    taught: Mapping[int, Document] = field(default_factory=dict)
    """By key, beside what the run itself was taught; the latest last."""
    used: float = 0.0


class Sessions:
    """Sessions by their tokens, of which only those are kept that have learnt something."""

    def __init__(
        self, parts: Parts, limits: Limits, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """Start without any."""
        self._parts, self._limits, self._clock = parts, limits, clock
        self._kept: OrderedDict[str, Session] = OrderedDict()

    def __len__(self) -> int:
        """Return the number of sessions that are kept."""
        self._forget_old()
        return len(self._kept)

    def of(self, token: str | None) -> Session:
        """Return the session of a token, or a new one where there is none."""
        self._forget_old()
        session = self._kept.get(token) if token is not None else None
        if session is None:
            return Session(token=secrets.token_urlsafe(32), parts=self._parts)
        session.used = self._clock()
        self._kept.move_to_end(session.token)
        return session

    def keep(self, session: Session) -> None:
        """Remember a session; the one unused for longest makes room."""
        session.used = self._clock()
        self._kept[session.token] = session
        self._kept.move_to_end(session.token)
        while len(self._kept) > self._limits.sessions:
            self._kept.popitem(last=False)

    def _forget_old(self) -> None:
        oldest_allowed = self._clock() - self._limits.session_seconds
        while self._kept and next(iter(self._kept.values())).used < oldest_allowed:
            self._kept.popitem(last=False)
