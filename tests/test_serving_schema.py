"""Requests that schemathesis makes of the OpenAPI document, right and wrong ones."""

from collections import Counter

import numpy as np
import pytest
import schemathesis
from fake_service import FakeService, file_of, text_of
from hypothesis import HealthCheck, Phase, given, settings, strategies as st
from PIL import Image
from schemathesis import GenerationMode
from schemathesis.checks import load_all_checks, not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    negative_data_rejection,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from cm3leon.serving.web import make_app

REQUESTS = 2000
EACH = 62
"""Requests of an operation and a mode."""
CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    negative_data_rejection,
]
HOST = "testserver"


def pictures():
    """Files that are pictures, for the most part."""
    noise = np.random.default_rng(0).integers(0, 256, (8, 8, 3), np.uint8)
    files = [file_of(), file_of(Image.fromarray(noise), "JPEG"), file_of(Image.new("L", (8, 8)))]
    files += [file_of(Image.new("RGBA", (8, 8)), "WEBP"), file_of(Image.new("L", (8, 8), 255))]
    return [*files, files[1][:50], b"GIF89a"]


@pytest.fixture(scope="module")
def schema():
    schemathesis.openapi.format("byte", st.sampled_from([*map(text_of, pictures())]))
    schemathesis.openapi.format("binary", st.sampled_from(pictures()))
    load_all_checks()
    app = make_app(FakeService(), hosts=[HOST])
    return schemathesis.openapi.from_asgi("/openapi.json", app)


@pytest.mark.slow
def test_no_request_of_two_thousand_fails_the_server(schema):
    statuses, done = Counter(), set()

    def ask(case, stream):
        accept = "text/event-stream" if stream else "application/json"
        response = case.call(headers={"Accept": accept})
        statuses[response.status_code] += 1
        if response.status_code < 300:
            done.add(case.operation.label)
        # in a form all is text: what is wrong of its kind in JSON may be right there
        form = case.media_type == "multipart/form-data"
        checks = [check for check in CHECKS if not (form and check is negative_data_rejection)]
        case.validate_response(response, checks=checks)

    for operation in (found.ok() for found in schema.get_all_operations()):
        for mode in GenerationMode:
            if mode == GenerationMode.NEGATIVE and not operation.body and not operation.headers:
                continue  # nothing of it can be wrong
            cases = operation.as_strategy(generation_mode=mode)
            check = given(cases, st.booleans())(ask)
            settings(
                max_examples=EACH,
                derandomize=True,
                database=None,
                deadline=None,
                phases=[Phase.generate],
                suppress_health_check=list(HealthCheck),
            )(check)()
    assert statuses.total() >= REQUESTS, statuses
    assert not [status for status in statuses if status >= 500]
    # what is right reaches the service; no key or name of what is there is guessed
    every = {found.ok().label for found in schema.get_all_operations()}
    assert every - done == {"DELETE /api/taught/{key}", "GET /v1/models/{name}"}
