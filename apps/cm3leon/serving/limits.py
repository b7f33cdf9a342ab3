"""What a service allows one request, one session and all of them together."""

from __future__ import annotations

from dataclasses import dataclass, fields

DOCUMENTS = 8
"""Most documents before a prompt, or looked up for one."""


@dataclass(frozen=True, kw_only=True)
class Limits:
    """Bounds of a service; a request beyond one is refused before it costs anything."""

    body_bytes: int = 8 * 2**20
    """Bytes of a request's body."""
    picture_bytes: int = 5 * 2**20
    """Bytes of one picture's file."""
    pixels: int = 16 * 10**6
    """Pixels of a picture, known from its header before it is decoded."""
    prompt_characters: int = 1000
    """Characters of a text that a user gives."""
    candidates: int = 16
    """Pictures or texts of one request."""
    boxes: int = 16
    """Things of one request that have a box."""
    rows: int = 32
    """Candidates, of all requests, that are drawn at the same time."""
    waiting: int = 64
    """Requests that wait for free rows; the next one is told to come again later."""
    seconds: float = 120.0
    """Time of one request, waiting included."""
    taught: int = 16
    """Pictures that a session may teach."""
    sessions: int = 256
    """Sessions that are remembered; the one unused for longest makes room."""
    session_seconds: float = 3600.0
    """Time after its last request for which a session is remembered."""

    def __post_init__(self) -> None:
        """Refuse bounds that let nothing through.

        Raises:
            ValueError: One is not above 0, or candidates have no room; names it.
        """
        for field in fields(self):
            if not (value := getattr(self, field.name)) > 0:
                raise ValueError(f"{field.name}: wanted a number above 0, got {value!r}")
        if self.candidates > self.rows:
            raise ValueError(
                f"candidates: wanted at most the {self.rows} rows, got {self.candidates}"
            )
