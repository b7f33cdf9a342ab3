"""The page's files, read once: what a user asks for is looked up in a list, never on the disk."""

from __future__ import annotations

import hashlib
import mimetypes
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from starlette.requests import Request
from starlette.responses import Response

from cm3leon.serving.refusals import Refused

FOLDER = Path(__file__).parent / "page"


@dataclass(frozen=True)
class PageFile:
    """A file of the page."""

    content: bytes
    media_type: str
    tag: str

    def response(self, request: Request) -> Response:
        """Return it, or say that the browser's copy is as good."""
        headers = {"ETag": self.tag, "Cache-Control": "no-cache"}
        if request.headers.get("if-none-match") == self.tag:
            return Response(status_code=304, headers=headers)
        return Response(self.content, headers=headers, media_type=self.media_type)


def read_page(folder: Path = FOLDER) -> dict[str, PageFile]:
    """Return the files of a folder by name; none where there is no folder."""
    files = {}
    for path in sorted(folder.iterdir()) if folder.is_dir() else ():
        if path.is_file() and not path.name.startswith("."):
            content = path.read_bytes()
            # not as the machine's own list of types may have it
            kind = {".js": "text/javascript", ".svg": "image/svg+xml"}.get(path.suffix)
            kind = kind or mimetypes.guess_type(path.name)[0] or "application/octet-stream"
            tag = f'"{hashlib.sha256(content).hexdigest()[:32]}"'
            files[path.name] = PageFile(content, kind, tag)
    return files


def file_of(page: Mapping[str, PageFile], name: str) -> PageFile:
    """Return a file of the page.

    Raises:
        Refused: There is none of that name.
    """
    if name not in page:
        raise Refused(404, "not_found", "no such file of the page")
    return page[name]
