"""Our own endpoints, over a service without a model."""

import base64
import io
import json
import re

import numpy as np
import pytest
from fake_service import CAN, FakeService, file_of, serving, text_of
from PIL import Image

from cm3leon.serving import asked
from cm3leon.serving.limits import Limits
from cm3leon.serving.schemas import EXAMPLE

PICTURE = text_of()
MASK = text_of(file_of(Image.new("L", (8, 8), 255)))
BOX = {"name": "fox", "box": [0, 10, 200, 255]}
BODIES = {
    "draw": ({"prompt": "a fox"}, asked.Draw),
    "describe": ({"picture": PICTURE}, asked.Describe),
    "infill": ({"picture": PICTURE, "mask": MASK, "prompt": "a fox"}, asked.Infill),
    "vary": ({"picture": PICTURE}, asked.Vary),
    "edit": ({"picture": PICTURE, "instruction": "make it blue"}, asked.Edit),
    "ask": ({"picture": PICTURE, "question": "what is it?"}, asked.Ask),
    "boxes": ({"boxes": [BOX]}, asked.Boxes),
    "write": ({"text": "K"}, asked.Write),
    "structure": ({"picture": PICTURE, "feature": "canny", "prompt": "a fox"}, asked.Structure),
}


@pytest.fixture
def service():
    return FakeService()


@pytest.fixture
def client(service):
    with serving(service) as client:
        yield client


@pytest.fixture(scope="module")
def refusing():
    """An application whose service is asked for nothing."""
    service = FakeService()
    with serving(service) as client:
        yield client
    assert not service.asked


def events_of(text):
    """Names and data of server-sent events; comments are skipped."""
    found = []
    for block in text.split("\n\n"):
        lines = [line for line in block.split("\n") if line and not line.startswith(":")]
        if lines:
            fields = dict(line.split(": ", 1) for line in lines)
            found.append((fields["event"], json.loads(fields["data"])))
    return found


def pixels_of(text):
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(text, validate=True))))


def test_every_kind_of_question_has_an_endpoint(client, service):
    assert {*BODIES, "teach"} == set(CAN)
    for name, (body, kind) in BODIES.items():
        answer = client.post(f"/api/{name}", json=body)
        assert answer.status_code == 200, answer.text
        assert type(service.asked[-1]) is kind
        assert answer.json().keys() in ({"pictures", "shown"}, {"texts"})


@pytest.mark.parametrize("name", BODIES)
def test_events_end_with_what_the_json_answer_says(client, name):
    body, _ = BODIES[name]
    whole = client.post(f"/api/{name}", json=body).json()
    answer = client.post(f"/api/{name}", json=body, headers={"Accept": "text/event-stream"})
    assert answer.headers["content-type"].startswith("text/event-stream")
    assert answer.headers["x-accel-buffering"] == "no"
    assert answer.headers["cache-control"] == "no-store"
    names, data = zip(*events_of(answer.text), strict=True)
    assert names[:3] == ("waiting", "documents", "progress")
    assert names[-1] in ("pictures", "texts") and data[-1] == whole
    assert data[0] == {"place": 0}
    assert data[1]["documents"][0]["key"] == "7"


def test_rows_are_the_upper_part_of_every_candidate(client):
    answer = client.post(
        "/api/draw",
        json={"prompt": "a fox", "candidates": 3, "seed": 5},
        headers={"Accept": "text/event-stream"},
    )
    rows = [data for name, data in events_of(answer.text) if name == "rows"]
    assert [row["rows"] for row in rows] == [1, 2, 3, 4]
    for row in rows:
        shapes = [pixels_of(picture).shape for picture in row["pictures"]]
        assert shapes == [(32 * row["rows"] // row["of"], 32, 3)] * 3
    name, data = events_of(answer.text)[-1]
    assert [one["seed"] for one in data["pictures"]] == [5, 6, 7]
    assert [pixels_of(one["picture"])[0, 0, 0] for one in data["pictures"]] == [5, 6, 7]


def test_choices_reach_the_service(client, service):
    changes = {
        "guidance_scale": 3,
        "image_guidance_scale": 1.5,
        "temperature": 0.7,
        "top_p": 0.9,
        "top_k": 40,
        "cd_alpha": 0.2,
        "cd_k": 4,
    }
    body = {"prompt": "a fox", "candidates": 4, "seed": 2**63 - 4, "retrieve": 1, **changes}
    body |= {"sampler": "mixed", "documents": ["0", str(2**63 - 1)]}
    assert client.post("/api/draw", json=body).status_code == 200
    got = service.asked[-1]
    assert (got.candidates, got.seed, got.retrieve) == (4, 2**63 - 4, 1)
    assert (got.sampler, got.changes) == ("mixed", changes)
    assert got.documents == (0, 2**63 - 1)


def test_choices_of_captions_and_parts_reach_the_service(client, service):
    changes = {"temperature": 0.7, "top_p": 0.9, "top_k": 40}
    for name in ("describe", "infill"):
        body = {**BODIES[name][0], **changes, "sampler": "greedy", "retrieve": 1, "seed": 3}
        assert client.post(f"/api/{name}", json=body).status_code == 200
        got = service.asked[-1]
        assert (got.sampler, got.changes, got.retrieve, got.seed) == ("greedy", changes, 1, 3)


def test_what_is_absent_is_left_to_the_run(client, service):
    client.post("/api/draw", json={"prompt": "a fox", "candidates": None})
    assert service.asked[-1] == asked.Draw(prompt="a fox")
    client.post("/api/draw", json={"prompt": "a fox", "documents": []})
    assert service.asked[-1].documents == ()


@pytest.mark.parametrize(
    ("name", "change", "param"),
    [
        ("draw", {"prompt": ""}, "prompt"),
        ("draw", {"prompt": " \n\t"}, "prompt"),
        ("draw", {"prompt": "a\0b"}, "prompt"),
        ("draw", {"prompt": "x" * 1001}, "prompt"),
        ("draw", {"prompt": 7}, "prompt"),
        ("draw", {"prompt": None}, "prompt"),
        ("draw", {"surprise": 1}, "surprise"),
        ("draw", {"candidates": 17}, "candidates"),
        ("draw", {"candidates": 0}, "candidates"),
        ("draw", {"candidates": True}, "candidates"),
        ("draw", {"candidates": "2"}, "candidates"),
        ("draw", {"candidates": 1.5}, "candidates"),
        ("draw", {"seed": -1}, "seed"),
        ("draw", {"seed": 2**63}, "seed"),
        ("draw", {"seed": 10**4000}, "seed"),
        ("draw", {"seed": 2**63 - 2, "candidates": 3}, "seed"),
        ("draw", {"temperature": 0}, "temperature"),
        ("draw", {"temperature": 1e9}, "temperature"),
        ("draw", {"top_p": 1.1}, "top_p"),
        ("draw", {"guidance_scale": True}, "guidance_scale"),
        ("draw", {"sampler": "best"}, "sampler"),
        ("draw", {"documents": [7]}, "documents.0"),
        ("draw", {"documents": ["-7"]}, "documents.0"),
        ("draw", {"documents": ["7\n"]}, "documents.0"),
        ("draw", {"documents": ["٣"]}, "documents.0"),
        ("draw", {"documents": ["1"] * 9}, "documents"),
        ("draw", {"retrieve": 99}, "retrieve"),
        ("infill", {"guidance_scale": 3}, "guidance_scale"),
        ("infill", {"image_guidance_scale": 3}, "image_guidance_scale"),
        ("infill", {"sampler": "cd-k"}, "sampler"),
        ("describe", {"sampler": "mixed"}, "sampler"),
        ("describe", {"cd_k": 3}, "cd_k"),
        ("edit", {"retrieve": 1}, "retrieve"),
        ("ask", {"question": "\u2003"}, "question"),
        ("ask", {"candidates": 1}, "candidates"),
        ("boxes", {"boxes": []}, "boxes"),
        ("boxes", {"boxes": [BOX] * 17}, "boxes"),
        ("boxes", {"boxes": [{}] * 300_000}, "boxes"),
        ("boxes", {"boxes": [{**BOX, "box": [0, 0, 256, 1]}]}, "boxes.0.box.2"),
        ("boxes", {"boxes": [{**BOX, "box": [9, 0, 9, 1]}]}, "boxes"),
        ("boxes", {"boxes": [{**BOX, "box": [0, 0, 9]}]}, "boxes.0.box"),
        ("boxes", {"boxes": [{**BOX, "name": "x" * 1001}]}, "name"),
        ("describe", {"picture": "https://example.org/fox.png"}, "picture"),
        ("describe", {"picture": "file:///etc/passwd"}, "picture"),
        ("describe", {"picture": "/etc/passwd"}, "picture"),
        ("describe", {"picture": ["a"]}, "picture"),
        ("infill", {"mask": text_of(file_of(Image.new("L", (9, 8), 255)))}, "mask"),
        ("infill", {"mask": text_of(file_of(Image.new("L", (8, 8), 0)))}, "mask"),
        ("structure", {"is_feature": 1}, "is_feature"),
        ("documents", {"prompt": "a", "count": 0}, "count"),
        ("documents", {"prompt": "a", "count": 10**30}, "count"),
        ("taught", {"picture": PICTURE, "name": " "}, "name"),
    ],
)
def test_what_is_wrong_is_named(refusing, name, change, param):
    body = {**BODIES.get(name, ({}, None))[0], **change}
    answer = refusing.post(f"/api/{name}", json=body)
    assert answer.status_code == 422, answer.text
    error = answer.json()["error"]
    assert error.keys() == {"message", "type", "param", "code"}
    assert error["param"] == param
    assert error["message"].startswith(f"{param}: ")
    assert len(error["message"]) <= 403


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[1, 2",
        b"null",
        b"[]",
        b'"prompt"',
        b"{'prompt': 'a'}",
        b'{"prompt": "a", "temperature": NaN}',
        b'{"prompt": "a", "temperature": Infinity}',
        b'{"prompt": "a", "temperature": 1e999}',
        b'{"prompt": "a", "seed": ' + b"9" * 5000 + b"}",
        b'{"prompt": "\\ud800"}',
        b'{"prompt": "a", "\\udfff": 1}',
        b'{"prompt": "a\\u0000"}',
        b'{"prompt": "\xff\xfe"}',
        b"\xff\xfe\x00",
        b"\0" * 100,
        b"[" * 100_000,
        b'{"prompt":' * 50_000,
        b'{"prompt": "a", "documents": ' + b"[" * 90_000 + b"]" * 90_000 + b"}",
        b"{" + b",".join(b'"%x": 0' % n for n in range(100_000)) + b"}",
        b'{"prompt": "a", "documents": [' + b'"x",' * 500_000 + b'"x"]}',
        b'{"prompt": "' + b"x" * 4_000_000 + b'"}',
        b'{"' + b"x" * 4_000_000 + b'": 1, "prompt": "a"}',
    ],
    ids=range(24),
)
def test_no_body_is_more_than_a_bad_request(refusing, body):
    answer = refusing.post(
        "/api/draw", content=body, headers={"Content-Type": "application/json; charset=utf-8"}
    )
    assert answer.status_code in (400, 422), answer.text
    assert len(answer.text) < 2000 and "Traceback" not in answer.text
    assert answer.json()["error"]["message"]


@pytest.mark.parametrize("kind", [None, "text/plain", "application/x-www-form-urlencoded", "x"])
def test_a_body_that_is_not_json_is_of_another_media_type(refusing, kind):
    headers = {} if kind is None else {"Content-Type": kind}
    answer = refusing.post("/api/draw", content=b'{"prompt": "a"}', headers=headers)
    assert answer.status_code == 415
    assert answer.json()["error"]["param"] is None


@pytest.mark.parametrize(
    ("error", "status", "code"),
    [
        (asked.Full(2.2), 429, "busy"),
        (asked.Late(), 504, "late"),
        (asked.Stopped(), 503, "stopped"),
        (asked.Broken(), 503, "model_failed"),
        (ValueError("prompt: wanted fewer tokens, got 900"), 422, "invalid_value"),
        (ValueError("/home/me/secret is not there"), 500, "internal_error"),
        (KeyError("/home/me/secret"), 500, "internal_error"),
        (RuntimeError("prompt: /home/me/secret"), 500, "internal_error"),
    ],
)
@pytest.mark.parametrize("accept", ["application/json", "text/event-stream"])
def test_errors_before_the_first_event_have_a_status(caplog, error, status, code, accept):
    with serving(FakeService(fails=error)) as client:
        answer = client.post("/api/draw", json={"prompt": "a"}, headers={"Accept": accept})
        assert answer.status_code == status
        assert answer.headers["content-type"] == "application/json"
        assert answer.json()["error"]["code"] == code
        assert "secret" not in answer.text
        assert ("secret" in caplog.text) == (status == 500)
        if status == 429:
            assert answer.headers["retry-after"] == "3"
        assert client.post("/api/documents", json={"prompt": "a", "count": 1}).status_code == status


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (asked.Late(), "late"),
        (asked.Stopped(), "stopped"),
        (asked.Broken(), "model_failed"),
        (RuntimeError("secret"), "internal_error"),
    ],
)
def test_errors_after_the_first_event_are_the_last_one(error, code):
    with serving(FakeService(fails=error, after=3)) as client:
        answer = client.post(
            "/api/draw", json={"prompt": "a"}, headers={"Accept": "text/event-stream"}
        )
        assert answer.status_code == 200
        events = events_of(answer.text)
        assert [name for name, _ in events] == ["waiting", "documents", "progress", "error"]
        assert events[-1][1]["error"]["code"] == code
        assert "secret" not in answer.text
        assert f'cm3_refused_total{{reason="{code}"}} 1.0' in client.get("/metrics").text


def test_a_session_is_taught_and_forgets(client, service):
    body = {"picture": PICTURE, "name": "zorp"}
    answer = client.post("/api/taught", json=body)
    assert answer.status_code == 201
    document = answer.json()
    assert document["taught"] and document["caption"] == "zorp"
    assert int(document["key"]) > 2**53 and isinstance(document["key"], str)
    token = answer.headers["x-session"]
    cookie = answer.headers["set-cookie"]
    assert re.match(f"cm3_session_[0-9a-f]{{8}}={token};", cookie)
    for word in ("HttpOnly", "SameSite=strict", "Path=/"):
        assert word in cookie
    assert "Secure" not in cookie
    # the client keeps the cookie
    assert client.get("/api/taught").json()["taught"] == [document]
    again = client.post("/api/taught", json=body)
    assert "x-session" not in again.headers and "set-cookie" not in again.headers
    assert len(service.sessions.kept) == 1
    client.cookies.clear()
    assert client.get("/api/taught").json() == {"taught": []}
    mine = {"X-Session": token}
    assert len(client.get("/api/taught", headers=mine).json()["taught"]) == 2
    key = document["key"]
    assert client.delete(f"/api/taught/{key}").status_code == 404
    gone = client.delete(f"/api/taught/{key}", headers=mine)
    assert gone.status_code == 204 and gone.content == b""
    assert client.delete(f"/api/taught/{key}", headers=mine).status_code == 404
    assert len(client.get("/api/taught", headers=mine).json()["taught"]) == 1


@pytest.mark.parametrize("key", ["x", "-1", "1.0", "01", "9" * 30, "..%2f..%2fetc%2fpasswd", "%00"])
def test_a_key_is_a_number(refusing, key):
    answer = refusing.delete(f"/api/taught/{key}")
    assert answer.status_code in (404, 422)
    assert "error" in answer.json()


def test_requests_without_a_session_leave_none(client, service):
    client.post("/api/draw", json={"prompt": "a"})
    client.get("/api/taught", headers={"X-Session": "x" * 200})
    assert service.sessions.kept == {}
    assert client.get("/api/taught", headers={"X-Session": "x" * 201}).status_code == 422


def test_what_the_run_is(client, service):
    assert client.get("/api/run").json() == service.about()
    found = client.post("/api/documents", json={"prompt": "a", "count": 2}).json()["documents"]
    assert [document["key"] for document in found] == ["0", "1"]


def test_health_follows_the_model(client, service):
    assert client.get("/healthz").json() == {"status": "ok"}
    service.alive = False
    answer = client.get("/healthz")
    assert (answer.status_code, answer.json()) == (503, {"status": "stopped"})


def test_figures_count_by_route_and_not_by_address(client):
    client.post("/api/draw", json={"prompt": "a", "candidates": 3})
    client.post("/api/describe", json={"picture": PICTURE, "candidates": 2})
    client.post("/api/draw", json={"prompt": ""})
    client.delete("/api/taught/1")
    client.delete("/api/taught/2")
    client.get("/no/such/place")
    answer = client.get("/metrics")
    assert answer.headers["content-type"].startswith("text/plain")
    for line in (
        'cm3_requests_total{route="/api/draw",status="200"} 1.0',
        'cm3_requests_total{route="/api/draw",status="422"} 1.0',
        'cm3_requests_total{route="/api/taught/{key}",status="404"} 2.0',
        'cm3_requests_total{route="none",status="404"} 1.0',
        'cm3_candidates_total{kind="pictures"} 3.0',
        'cm3_candidates_total{kind="texts"} 2.0',
        'cm3_refused_total{reason="invalid_value"} 1.0',
        'cm3_request_seconds_count{route="/api/draw"} 2.0',
        "cm3_waiting 0.0",
    ):
        assert line in answer.text


def test_two_applications_have_figures_of_their_own(client):
    client.post("/api/draw", json={"prompt": "a"})
    with serving() as other:
        assert "/api/draw" not in other.get("/metrics").text


def test_limits_are_those_of_the_service():
    limits = Limits(candidates=3, prompt_characters=5, boxes=1)
    with serving(FakeService(limits)) as client:
        document = client.get("/openapi.json").json()
        fields = document["components"]["schemas"]["BoxesBody"]["properties"]
        assert fields["candidates"]["anyOf"][0]["maximum"] == 3
        assert fields["prompt"]["anyOf"][0]["maxLength"] == 5
        assert fields["boxes"]["maxItems"] == 1
        for body, status in (
            ({"prompt": "12345", "candidates": 3}, 200),
            ({"prompt": "123456"}, 422),
            ({"prompt": "a", "candidates": 4}, 422),
        ):
            assert client.post("/api/draw", json=body).status_code == status


def test_the_document_names_every_endpoint_and_the_shape_of_errors(client):
    document = client.get("/openapi.json").json()
    text = json.dumps(document)
    assert "HTTPValidationError" not in text and "401" not in document["paths"]["/api/draw"]["post"]
    assert {f"/api/{name}" for name in BODIES} < document["paths"].keys()
    for path, methods in document["paths"].items():
        for operation in methods.values():
            for status, answer in operation["responses"].items():
                if status >= "400" and path != "/healthz":
                    schema = answer["content"]["application/json"]["schema"]
                    assert schema == {"$ref": "#/components/schemas/ErrorAnswer"}
    responses = document["paths"]["/api/draw"]["post"]["responses"]
    assert responses["200"]["content"].keys() == {"application/json", "text/event-stream"}
    assert {"400", "408", "413", "415", "422", "429", "503", "504"} < responses.keys()
    assert pixels_of(EXAMPLE).shape == (1, 1, 3)


@pytest.mark.parametrize("path", ["/docs", "/redoc", "/api/draw/", "//api/run", "/api"])
def test_there_is_nothing_else(refusing, path):
    answer = refusing.get(path, follow_redirects=False)
    assert answer.status_code == 404
    assert answer.json()["error"]["code"] == "not_found"


def test_another_method_is_refused_with_those_that_are_not(client):
    answer = client.put("/api/draw")
    assert answer.status_code == 405 and answer.headers["allow"] == "POST"
    assert answer.json()["error"]["code"] == "method_not_allowed"
