"""The HTTP application over a service."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
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
from cm3leon.serving.schemas import BOUNDS, MOST_SEED
from cm3leon.serving.security import LOOPBACK, Boundary, Door, Intake, named

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
            for name in ("HTTPValidationError", "ValidationError"):
                schemas.pop(name, None)
            for name, schema in schemas.items():
                if name.endswith("Form"):
                    _describe_form(schema)
                if schema.get("additionalProperties") is False:
                    _describe_limits(schema, self._limits)
            for path, methods in document["paths"].items():
                for operation in methods.values():
                    if path.startswith("/v1/"):
                        operation["responses"].pop("422", None)
                    if not self._token:
                        operation["responses"].pop("401", None)
                    elif path != "/healthz":
                        operation["security"] = [{"token": []}]
            if self._token:
                scheme = {"type": "http", "scheme": "bearer"}
                document["components"]["securitySchemes"] = {"token": scheme}
        return self.openapi_schema or {}


def _describe_form(schema: dict[str, Any]) -> None:
    """Say of a form that its fields cannot be null, and which are files."""
    for field in schema["properties"].values():
        kinds = [kind for kind in field.pop("anyOf", []) if kind != {"type": "null"}]
        field |= kinds[0] if kinds else {}
        file = field.get("items", field)
        if "contentMediaType" in file:
            file["format"] = "binary"


def _describe_limits(schema: dict[str, Any], limits: Limits) -> None:
    """Say of an object of a request what a service's limits are."""
    for name, field in schema["properties"].items():
        for kind in field.get("anyOf", [field]):
            if kind.get("type") == "integer" and name == "seed":
                kind["maximum"] = MOST_SEED  # FastAPI has made a float of it
            elif kind.get("type") in _KEYWORDS and name in BOUNDS:
                kind[_KEYWORDS[kind["type"]]] = getattr(limits, BOUNDS[name])


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
    app.add_middleware(Door, hosts=frozenset({*LOOPBACK, *map(named, hosts)}), token=token)
    app.add_middleware(Boundary, metrics=serving.metrics)
    return app


def _raise(request: Request, error: Exception) -> NoReturn:
    """Leave the answer to `Boundary`, as that of every other error."""
    raise problem_of(error)
