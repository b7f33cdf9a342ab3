"""The HTTP application over a service."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, NoReturn

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.formparsers import MultiPartParser

from cm3leon.serving import endpoints, openai
from cm3leon.serving.answering import Serving, problem_of
from cm3leon.serving.interface import Service
from cm3leon.serving.limits import Limits
from cm3leon.serving.page_files import FOLDER, read_page
from cm3leon.serving.schemas import BOUNDS
from cm3leon.serving.security import LOOPBACK, Boundary, Door, Intake

BODY_SECONDS = 30.0
"""Time in which a body has to come in."""
_KEYWORDS = {"string": "maxLength", "integer": "maximum", "array": "maxItems"}


class Application(FastAPI):
    """FastAPI whose document says what this service's limits and errors are."""

    def __init__(self, limits: Limits, *, token: bool, **options: Any) -> None:
        """Make an empty one.

        Args:
            limits: Of the service.
            token: Whether clients have to show one.
            options: FastAPI's.
        """
        super().__init__(**options)
        self._limits, self._token = limits, token

    def openapi(self) -> dict[str, Any]:
        """Return the OpenAPI document."""
        if self.openapi_schema is None:
            document = super().openapi()
            schemas = document["components"]["schemas"]
            for name, field in _fields(schemas.values()):
                most = getattr(self._limits, BOUNDS[name])
                for kind in field.get("anyOf", [field]):
                    if kind.get("type") in _KEYWORDS:
                        kind[_KEYWORDS[kind["type"]]] = most
            for path, methods in document["paths"].items():
                for operation in methods.values():
                    if path.startswith("/v1/"):
                        operation["responses"].pop("422", None)
                    if not self._token:
                        operation["responses"].pop("401", None)
                    elif path != "/healthz":
                        operation["security"] = [{"token": []}]
            schemas.pop("HTTPValidationError", None)
            schemas.pop("ValidationError", None)
            if self._token:
                scheme = {"type": "http", "scheme": "bearer"}
                document["components"]["securitySchemes"] = {"token": scheme}
        return self.openapi_schema or {}


def _fields(schemas: Iterable[dict[str, Any]]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Give the fields of requests that a service's limits bound."""
    for schema in schemas:
        if schema.get("additionalProperties") is False:
            for name, field in schema["properties"].items():
                if name in BOUNDS:
                    yield name, field


def make_app(
    service: Service,
    *,
    hosts: Iterable[str] = (),
    token: str | None = None,
    page: Path = FOLDER,
    body_seconds: float = BODY_SECONDS,
) -> FastAPI:
    """Return the application; whoever runs it closes the service.

    Args:
        service: What answers.
        hosts: Names and addresses, beside those of the loopback, under which clients come.
        token: What clients have to show, or None.
        page: Folder of the page.
        body_seconds: Time in which a request's body has to come in.
    """
    limits, serving = service.limits, Serving(service)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        yield
        serving.files.close()

    app = Application(
        limits,
        token=token is not None,
        title="CM3Leon",
        summary="One transformer over text and pictures, with retrieval: drawing, describing, ...",
        version=str(service.about()["version"]),
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        lifespan=lifespan,
    )
    app.state.serving, app.state.page = serving, read_page(page)
    for router in (endpoints.page, endpoints.state, endpoints.work, openai.router):
        app.include_router(router)
    for kind in (RequestValidationError, HTTPException):
        app.add_exception_handler(kind, _raise)
    # uploads stay in memory, where the limit on bodies holds: none makes a file
    MultiPartParser.spool_max_size = limits.body_bytes
    # the last that is added stands outermost
    app.add_middleware(
        Intake,
        body_bytes=limits.body_bytes,
        requests=limits.waiting + limits.rows,
        seconds=body_seconds,
    )
    app.add_middleware(Door, hosts=frozenset({*LOOPBACK, *map(str.lower, hosts)}), token=token)
    app.add_middleware(Boundary, metrics=serving.metrics)
    return app


def _raise(request: Request, error: Exception) -> NoReturn:
    """Leave the answer to `Boundary`, as that of every other error."""
    raise problem_of(error)
