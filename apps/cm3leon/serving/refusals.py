"""Errors as answers, in the shape of OpenAI's: what the client did, and never a trace."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import Response

from cm3leon.serving.asked import Broken, Full, Late, Stopped

LONGEST = 400
"""Characters of a message; what came may be of any length."""
_KINDS = {401: "authentication_error", 403: "permission_error", 429: "rate_limit_error"}
_NAMES = {404: "not_found", 405: "method_not_allowed"}


class Refused(Exception):
    """A request that gets an error for an answer."""

    def __init__(
        self,
        status: int,
        code: str,
        message: str,
        *,
        param: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        """Make one.

        Args:
            status: Of HTTP.
            code: What programs and figures tell it by.
            message: For people.
            param: The parameter at fault.
            headers: Of the answer, beside the usual ones.
        """
        super().__init__(message)
        self.status, self.code, self.param = status, code, param
        self.headers = dict(headers or {})

    def body(self) -> bytes:
        """Return the JSON of the answer."""
        text = str(self)
        error = {
            "message": text if len(text) <= LONGEST else f"{text[:LONGEST]}...",
            "type": _KINDS.get(
                self.status, "server_error" if self.status >= 500 else "invalid_request_error"
            ),
            "param": self.param,
            "code": self.code,
        }
        # ASCII: what came may hold half a surrogate pair, which no UTF-8 can
        return json.dumps({"error": error}).encode("ascii")

    def response(self, path: str) -> Response:
        """Return the answer; OpenAI's routes know no 422."""
        status = 400 if self.status == 422 and path.startswith("/v1/") else self.status
        return Response(self.body(), status, self.headers, "application/json")


def refusal_of(error: Exception) -> Refused | None:
    """Return the answer to an error that is not the program's own; None for those."""
    if isinstance(error, Refused):
        return error
    if isinstance(error, Full):
        headers = {"Retry-After": str(max(1, math.ceil(error.retry_after)))}
        return Refused(429, "busy", str(error), headers=headers)
    if isinstance(error, Late):
        return Refused(504, "late", "the request took longer than the service allows")
    if isinstance(error, Stopped):
        return Refused(503, "stopped", "the service ends")
    if isinstance(error, Broken):
        return Refused(503, "model_failed", "the model failed; the service's log says more")
    if isinstance(error, HTTPException):
        code = _NAMES.get(error.status_code, "invalid_request")
        return Refused(error.status_code, code, error.detail, headers=error.headers)
    if isinstance(error, RequestValidationError):
        return _invalid(error.errors())
    # of any other form it does not speak to the user
    if isinstance(error, ValueError) and (named := re.match(r"([a-z][a-z0-9_]*): ", str(error))):
        return Refused(422, "invalid_value", str(error), param=named[1])
    return None


def _invalid(errors: Sequence[Mapping[str, Any]]) -> Refused:
    """Return the answer to what pydantic found, which is its first complaint."""
    first = errors[0]
    if first["type"] == "json_invalid":
        return Refused(400, "invalid_json", f"body: wanted JSON; {first['ctx']['error']}")
    place = [str(part)[:LONGEST] for part in first["loc"][1:]]
    param = ".".join(place) or "body"
    wanted = str(first["msg"]).removeprefix("Value error, ").replace("Input should be", "wanted")
    if first["type"] == "extra_forbidden":
        wanted = "wanted no such field"
    elif first["type"] == "missing":
        wanted = "wanted a value, got none"
    elif "Expected UploadFile" in wanted:
        wanted = "wanted a file, got a text"
    elif isinstance(came := first.get("input"), str | int | float):
        shown = repr(came[:40] if isinstance(came, str) else came)
        wanted = f"{wanted}, got {shown[:60]}"
    return Refused(422, "invalid_value", f"{param}: {wanted}", param=param)
