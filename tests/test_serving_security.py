"""Who may ask, how much may come in, and what every answer says."""

import pytest
from fake_service import FakeService, file_of, serving, text_of

from cm3leon.serving.limits import Limits
from cm3leon.serving.security import HEADERS

TOKEN = "correct-horse-battery"
DRAW = {"json": {"prompt": "a fox"}}
TEACH = {"picture": text_of(), "name": "zorp"}


@pytest.fixture
def page(tmp_path):
    folder = tmp_path / "page"
    (folder / "deeper").mkdir(parents=True)
    (folder / "deeper" / "b.js").write_text("no")
    (folder / "index.html").write_text("<!doctype html><title>é</title>", encoding="utf-8")
    (folder / "app.js").write_text("export {};")
    (folder / "style.css").write_text("body { margin: 0 }")
    (folder / "icon.svg").write_text('<svg xmlns="http://www.w3.org/2000/svg"/>')
    (folder / ".hidden").write_text("secret")
    (tmp_path / "secret.txt").write_text("secret")
    (folder / "link.txt").symlink_to(tmp_path / "secret.txt")
    return folder


@pytest.fixture(scope="module")
def open_client():
    with serving() as client:
        yield client


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/healthz", 200),
        ("GET", "/no/such", 404),
        ("GET", "/static/none.js", 404),
        ("PUT", "/api/run", 405),
        ("POST", "/api/draw", 415),
        ("POST", "/v1/images/edits", 415),
        ("GET", "/openapi.json", 200),
        ("GET", "/metrics", 200),
    ],
)
def test_every_answer_has_the_headers(open_client, method, path, status):
    answer = open_client.request(method, path)
    assert answer.status_code == status
    for name, value in HEADERS.items():
        assert answer.headers[name] == value
    policy = answer.headers["content-security-policy"]
    assert "default-src 'none'" in policy and "unsafe" not in policy and "*" not in policy
    assert "server" not in answer.headers


def test_errors_of_the_program_have_them_too():
    with serving(FakeService(fails=RuntimeError("secret"))) as client:
        answer = client.post("/api/draw", **DRAW)
        assert answer.status_code == 500 and "secret" not in answer.text
        assert answer.headers["x-frame-options"] == "DENY"
        stream = client.post("/api/draw", **DRAW, headers={"Accept": "text/event-stream"})
        assert stream.status_code == 500


@pytest.mark.parametrize(
    ("host", "good"),
    [
        ("localhost", True),
        ("LOCALHOST:8000", True),
        ("127.0.0.1:1", True),
        ("[::1]:8000", True),
        ("draw.example.org", True),
        ("draw.example.org:443", True),
        ("evil.example.org", False),
        ("localhost.evil.org", False),
        ("evil.org/localhost", False),
        ("localhost@evil.org", False),
        ("localhost:8000:9", False),
        ("127.0.0.2", False),
        ("0.0.0.0", False),
        ("", False),
        ("localhost,evil.org", False),
        ("é", False),
    ],
)
def test_a_name_that_is_not_ours_is_refused(host, good):
    with serving(hosts=["Draw.Example.org"]) as client:
        answer = client.get("/healthz", headers={"Host": host.encode()})
        assert answer.status_code == (200 if good else 400)
        assert good or answer.json()["error"]["code"] == "unknown_host"


@pytest.mark.parametrize("given", ["fd00::1", "[fd00::1]", "FD00:0::1"])
@pytest.mark.parametrize(
    ("host", "good"),
    [
        ("[fd00::1]:8000", True),
        ("[FD00:0:0::1]", True),
        ("[fd00::2]", False),
        ("fd00::1", False),
        ("[fd00::1", False),
        ("[[fd00::1]]", False),
        ("[:::]", False),
    ],
)
def test_an_ipv6_address_is_a_name_in_brackets(given, host, good):
    with serving(hosts=[given]) as client:
        assert client.get("/healthz", headers={"Host": host}).status_code == (200 if good else 400)


@pytest.mark.parametrize(
    ("origin", "good"),
    [
        (None, True),
        ("http://localhost", True),
        ("https://localhost", True),
        ("http://localhost:8000", False),
        ("http://127.0.0.1", False),
        ("https://evil.example.org", False),
        ("null", False),
        ("", False),
        ("localhost", False),
        ("file://localhost", False),
    ],
)
@pytest.mark.parametrize(("method", "path"), [("POST", "/api/draw"), ("GET", "/api/run")])
def test_another_page_is_refused(open_client, method, path, origin, good):
    headers = {} if origin is None else {"Origin": origin}
    body = DRAW if method == "POST" else {}
    answer = open_client.request(method, path, headers=headers, **body)
    assert answer.status_code == (200 if good else 403)
    assert "access-control-allow-origin" not in answer.headers
    assert good or answer.json()["error"]["code"] == "other_origin"


def test_no_other_page_is_allowed_by_a_preflight(open_client):
    headers = {"Origin": "https://evil.example.org", "Access-Control-Request-Method": "POST"}
    answer = open_client.options("/api/draw", headers=headers)
    assert answer.status_code == 403
    assert not [name for name in answer.headers if name.startswith("access-control")]


@pytest.mark.parametrize(
    "given",
    [
        None,
        "",
        "Bearer",
        "Bearer ",
        f"Basic {TOKEN}",
        f"Bearer {TOKEN[:-1]}",
        f"Bearer {TOKEN}x",
        f"Bearer  {TOKEN}",
        TOKEN,
        f"Bearer {TOKEN.upper()}",
        "Bearer é",
    ],
)
def test_only_the_page_is_open_without_the_token(page, given):
    headers = {} if given is None else {"Authorization": given.encode()}
    with serving(token=TOKEN, page=page) as client:
        for path in ("/", "/static/app.js", "/healthz"):
            assert client.get(path, headers=headers).status_code == 200
        for method, path in (
            ("GET", "/api/run"),
            ("POST", "/api/draw"),
            ("POST", "/api/taught"),
            ("GET", "/metrics"),
            ("GET", "/openapi.json"),
            ("GET", "/v1/models"),
            ("POST", "/v1/images/generations"),
            ("GET", "/no/such"),
            ("GET", "/static/../api/run"),
            ("GET", "/static/a/b"),
            ("GET", "/healthz/"),
        ):
            answer = client.request(method, path, headers=headers)
            assert answer.status_code == 401, path
            assert answer.headers["www-authenticate"] == "Bearer"
            assert TOKEN not in answer.text


@pytest.mark.parametrize("scheme", ["Bearer", "bearer", "BEARER"])
def test_the_token_opens(scheme):
    with serving(token=TOKEN) as client:
        headers = {"Authorization": f"{scheme} {TOKEN}"}
        assert client.post("/api/draw", headers=headers, **DRAW).status_code == 200
        document = client.get("/openapi.json", headers=headers).json()
        assert document["components"]["securitySchemes"]["token"]["scheme"] == "bearer"
        assert document["paths"]["/api/run"]["get"]["security"] == [{"token": []}]
        assert "security" not in document["paths"]["/healthz"]["get"]
        assert "401" in document["paths"]["/api/run"]["get"]["responses"]


def test_a_large_body_waits_for_the_token():
    with serving(FakeService(Limits(body_bytes=100)), token=TOKEN) as client:
        assert client.post("/api/draw", content=b"x" * 1000).status_code == 401


@pytest.mark.parametrize("chunked", [False, True])
@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/api/draw", "application/json"),
        ("/v1/images/edits", "multipart/form-data; boundary=b"),
        ("/api/run", "application/json"),
        ("/no/such", "text/plain"),
    ],
)
def test_no_body_is_larger_than_the_limit(path, kind, chunked):
    def pieces():
        for _ in range(20):
            yield b"x" * 100

    with serving(FakeService(Limits(body_bytes=1000))) as client:
        content = pieces() if chunked else b"x" * 2000
        method = "GET" if path == "/api/run" else "POST"
        headers = {"Content-Type": kind}
        answer = client.request(method, path, content=content, headers=headers)
        assert answer.status_code == 413
        assert answer.json()["error"]["code"] == "body_too_large"


@pytest.mark.parametrize("chunked", [False, True])
@pytest.mark.parametrize(
    ("method", "path"),
    [("GET", "/"), ("GET", "/healthz"), ("PUT", "/api/draw"), ("DELETE", "/api/taught/1")],
)
def test_what_is_not_posted_has_no_body(open_client, method, path, chunked):
    content = iter([b"x"]) if chunked else b"x"
    answer = open_client.request(method, path, content=content)
    assert answer.status_code == 413
    error = answer.json()["error"]
    assert error["message"] == f"body: wanted none with {method}, got one"


def test_a_body_of_the_limit_comes_in():
    service = FakeService(Limits(body_bytes=100))
    with serving(service) as client:
        body = b'{"prompt": "a fox"}'.ljust(100)
        headers = {"Content-Type": "application/json"}
        assert client.post("/api/draw", content=body, headers=headers).status_code == 200
        assert client.post("/api/draw", content=body + b" ", headers=headers).status_code == 413


def test_a_picture_is_no_larger_than_its_limit():
    with serving(FakeService(Limits(picture_bytes=50))) as client:
        answer = client.post("/api/describe", json={"picture": text_of(file_of())})
        assert answer.status_code == 422 and answer.json()["error"]["param"] == "picture"


def test_the_page_and_nothing_beside_it(page):
    with serving(page=page) as client:
        index = client.get("/")
        assert index.text.startswith("<!doctype html>") and "é" in index.text
        assert index.headers["content-type"] == "text/html; charset=utf-8"
        for name, kind in (
            ("app.js", "text/javascript; charset=utf-8"),
            ("style.css", "text/css; charset=utf-8"),
            ("icon.svg", "image/svg+xml"),
        ):
            answer = client.get(f"/static/{name}")
            assert (answer.status_code, answer.headers["content-type"]) == (200, kind)
            tag = answer.headers["etag"]
            again = client.get(f"/static/{name}", headers={"If-None-Match": tag})
            assert (again.status_code, again.content) == (304, b"")
        for name in (
            ".hidden",
            "deeper",
            "deeper/b.js",
            "deeper%2fb.js",
            "..%2fsecret.txt",
            "%2e%2e/secret.txt",
            "%2fetc%2fpasswd",
            "app.js%00",
            "app.js/",
            "",
        ):
            answer = client.get(f"/static/{name}")
            assert answer.status_code == 404, name
            assert "secret" not in answer.text


def test_the_page_may_change_on_the_disk_and_is_served_as_it_was(page):
    with serving(page=page) as client:
        (page / "app.js").write_text("changed")
        (page / "new.js").write_text("new")
        assert client.get("/static/app.js").text == "export {};"
        assert client.get("/static/new.js").status_code == 404


def test_without_a_page_the_service_is_there(tmp_path):
    for folder in (tmp_path, tmp_path / "none"):
        with serving(page=folder) as client:
            assert client.get("/").status_code == 404
            assert client.get("/static/app.js").status_code == 404
            assert client.get("/healthz").status_code == 200


def test_only_who_teaches_gets_a_session(page):
    with serving(page=page) as client:
        assert "set-cookie" not in client.get("/").headers
        assert client.get("/api/taught").json() == {"taught": []}
        client.post("/api/taught", json=TEACH)
        assert "set-cookie" not in client.get("/").headers
        assert len(client.get("/api/taught").json()["taught"]) == 1
        client.cookies.clear()
        assert client.get("/api/taught").json() == {"taught": []}


def test_two_services_of_one_host_leave_each_other_their_sessions(page):
    """A browser shows its cookies to every port."""
    with serving(page=page) as first, serving(page=page) as second:
        second.cookies.jar = first.cookies.jar
        for client in (first, second):
            client.post("/api/taught", json=TEACH)
        for client in (first, second):
            client.get("/")
            assert len(client.get("/api/taught").json()["taught"]) == 1


def test_over_tls_the_cookie_stays_there(page):
    with serving(page=page) as client:
        for scheme, secure in (("http", False), ("https", True)):
            client.cookies.clear()
            cookie = client.post(f"{scheme}://localhost/api/taught", json=TEACH).headers[
                "set-cookie"
            ]
            assert "HttpOnly" in cookie and "SameSite=strict" in cookie
            assert ("Secure" in cookie) == secure
