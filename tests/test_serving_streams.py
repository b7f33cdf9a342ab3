"""Real connections to a real server: clients that go away, are slow, send too much, or are many."""

import json
import re
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from fake_service import FakeService, listening, until

from cm3leon.serving import answering, server
from cm3leon.serving.limits import Limits

DRAW = {"prompt": "a fox"}
SSE = "Accept: text/event-stream\r\n"


def connect(port):
    return socket.create_connection(("127.0.0.1", port), timeout=20)


def request(path="/api/draw", body=DRAW, headers=""):
    """The bytes of a request."""
    content = json.dumps(body).encode()
    head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    return f"{head}{headers}Content-Length: {len(content)}\r\n\r\n".encode() + content


def answer_of(connection):
    """Read an answer to its end; gives the status, the head and the body, pieces put together."""
    file = connection.makefile("rb")
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        line = file.readline()
        assert line, head
        head += line
    status = int(head.split()[1])
    if length := re.search(rb"content-length: (\d+)", head):
        return status, head, file.read(int(length[1]))
    body = b""
    while size := int(file.readline(), 16):
        body += file.read(size)
        file.readline()
    return status, head, body


def ask(port, **options):
    with connect(port) as connection:
        connection.sendall(request(**options))
        return answer_of(connection)


@pytest.mark.parametrize("headers", ["", SSE])
@pytest.mark.parametrize("abruptly", [False, True])
def test_a_client_that_goes_away_cancels_its_work(headers, abruptly):
    service = FakeService(pause=0.5)
    with listening(service) as port:
        connection = connect(port)
        connection.sendall(request(headers=headers))
        until(lambda: service.running == 1)
        if abruptly:  # a reset, as of a program that was killed
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
        connection.close()
        begun = time.monotonic()
        until(lambda: service.cancelled == 1)
        assert time.monotonic() - begun < 1
        assert service.running == 0
        assert b"cm3_cancelled_total 1.0" in metrics(port)


def metrics(port):
    with connect(port) as connection:
        connection.sendall(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n")
        return answer_of(connection)[2]


def test_a_client_that_leaves_a_stream_cancels_its_work():
    service = FakeService(pause=0.2)
    with listening(service) as port:
        with connect(port) as connection:
            connection.sendall(request(headers=SSE))
            while b"event: progress" not in (got := connection.recv(2**16)):
                assert got
        until(lambda: service.cancelled == 1)


def test_openai_streams_are_cancelled_too():
    service = FakeService(pause=0.2)
    with listening(service) as port:
        body = {"prompt": "a fox", "stream": True, "partial_images": 3}
        with connect(port) as connection:
            connection.sendall(request("/v1/images/generations", body))
            while b"image_generation.partial_image" not in (got := connection.recv(2**16)):
                assert got
        until(lambda: service.cancelled == 1)


@pytest.mark.parametrize("method", ["GET /api/taught", "DELETE /api/taught/1"])
def test_who_asks_what_was_taught_and_goes_away_is_not_answered(method):
    service = FakeService(pause=60)
    with listening(service) as port:
        with connect(port) as connection:
            connection.sendall(f"{method} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
            until(lambda: service.looking == 1)
        until(lambda: service.looking == 0)


def test_a_head_is_answered_without_the_rest():
    with listening(FakeService()) as port:
        for path in ("/", "/healthz", "/static/app.js"):
            with connect(port) as connection:
                get = f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode()
                connection.sendall(get.replace(b"GET", b"HEAD") + get)
                file = connection.makefile("rb")
                heads = []
                for _ in range(2):
                    heads.append([])
                    while (line := file.readline()) not in (b"\r\n", b""):
                        heads[-1].append(line)
                assert heads[0] == heads[1] and b"200" in heads[0][0]


def test_events_come_while_they_happen():
    with listening(FakeService(pause=0.1)) as port, connect(port) as connection:
        connection.sendall(request(headers=SSE))
        times = {}
        content = b""
        while b"event: pictures" not in content:
            content += connection.recv(2**16)
            for name in re.findall(rb"event: (\w+)", content):
                times.setdefault(name, time.monotonic())
        assert times[b"pictures"] - times[b"waiting"] > 0.5


def test_a_quiet_stream_is_kept_open(monkeypatch):
    monkeypatch.setattr(answering, "PING", 0.02)
    with listening(FakeService(pause=0.1)) as port:
        status, head, body = ask(port, headers=SSE)
        assert status == 200
        assert body.count(b": ping\n\n") > 5
        assert body.startswith(b"event: waiting\n") and b"event: pictures\n" in body


def test_a_service_that_hangs_is_not_waited_for(monkeypatch):
    monkeypatch.setattr(answering, "MARGIN", 0.5)
    service = FakeService(Limits(seconds=0.5), pause=60)
    with listening(service) as port:
        status, _, body = ask(port)
        assert status == 504 and json.loads(body)["error"]["code"] == "late"
        until(lambda: service.cancelled == 1)


def test_a_slow_body_is_not_waited_for():
    with listening(FakeService(), body_seconds=0.5) as port, connect(port) as connection:
        whole = request()
        connection.sendall(whole[:-5])
        status, head, body = answer_of(connection)
        assert status == 408 and b"connection: close" in head
        assert json.loads(body)["error"]["code"] == "slow_body"
        assert connection.recv(100) == b""


def test_a_body_in_drops_has_no_more_time():
    with listening(FakeService(), body_seconds=0.6) as port, connect(port) as connection:
        connection.sendall(request(body={"prompt": " " * 1000})[:-900])
        with pytest.raises(OSError):  # the server has closed
            for _ in range(200):
                connection.sendall(b" ")
                time.sleep(0.05)


@pytest.mark.parametrize("before", [b"", request()], ids=["first", "second"])
def test_a_head_that_does_not_come_in_is_not_waited_for(monkeypatch, before):
    monkeypatch.setattr(server, "HEAD_SECONDS", 0.5)
    with listening(FakeService()) as port, connect(port) as connection:
        if before:
            connection.sendall(before)
            assert answer_of(connection)[0] == 200
        with pytest.raises(OSError):  # the server has closed
            for _ in range(200):
                connection.sendall(b"A")
                time.sleep(0.05)


@pytest.mark.parametrize("goes_on", [False, True])
@pytest.mark.parametrize(
    ("host", "status"), [("localhost", 401), ("elsewhere", 400)], ids=["token", "host"]
)
def test_a_body_that_nobody_reads_is_not_waited_for(monkeypatch, host, status, goes_on):
    monkeypatch.setattr(server, "HEAD_SECONDS", 0.3)
    with listening(FakeService(), token="x" * 20) as port, connect(port) as connection:
        head = f"POST /api/draw HTTP/1.1\r\nHost: {host}\r\nContent-Length: 1000000\r\n\r\n"
        connection.sendall(head.encode())
        assert answer_of(connection)[0] == status
        connection.sendall(b"x")
        if not goes_on:
            assert connection.recv(100) == b""
            return
        with pytest.raises(OSError):  # the server has closed
            for _ in range(200):
                connection.sendall(b"x")
                time.sleep(0.05)


def test_a_client_that_takes_nothing_is_let_go(monkeypatch):
    monkeypatch.setattr(server, "SENT_SECONDS", 0.3)
    service = FakeService()
    with listening(service) as port, socket.socket() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
        connection.connect(("127.0.0.1", port))
        # answers to these are more than the machine keeps on their way
        connection.sendall(b"GET /openapi.json HTTP/1.1\r\nHost: localhost\r\n\r\n" * 400)
        until(lambda: any(one.flow.write_paused for one in service.connections))
        until(lambda: not service.connections)


@pytest.mark.parametrize("path", ["/api/draw", "/v1/images/edits"])
def test_chunks_without_a_length_are_counted(path):
    service = FakeService(Limits(body_bytes=100_000))
    with listening(service) as port, connect(port) as connection:
        kind = "application/json" if "api" in path else "multipart/form-data; boundary=b"
        head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: {kind}\r\n"
        connection.sendall(f"{head}Transfer-Encoding: chunked\r\n\r\n".encode())
        for _ in range(11):
            connection.sendall(b"2710\r\n" + b"x" * 10_000 + b"\r\n")
        status, _, body = answer_of(connection)
        assert status == 413 and json.loads(body)["error"]["code"] == "body_too_large"
        # the connection goes on: what is left of the body is thrown away
        connection.sendall(b"1\r\nx\r\n0\r\n\r\n" + request())
        assert answer_of(connection)[0] == 200


def test_a_length_above_the_limit_is_refused_before_the_body():
    with listening(FakeService(Limits(body_bytes=1000))) as port, connect(port) as connection:
        head = "POST /api/draw HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        connection.sendall(f"{head}Expect: 100-continue\r\nContent-Length: 1001\r\n\r\n".encode())
        assert answer_of(connection)[0] == 413


@pytest.mark.slow
def test_of_many_at_once_some_come_again_later():
    service = FakeService(Limits(candidates=8, rows=8, waiting=200), pause=0.1)
    with listening(service) as port:
        with ThreadPoolExecutor(64) as pool:
            answers = list(pool.map(lambda _: ask(port), range(64)))
        statuses = [status for status, _, _ in answers]
        assert set(statuses) == {200, 429}
        assert statuses.count(200) >= 8
        for status, head, _ in answers:
            assert (b"retry-after: 3\r\n" in head) == (status == 429)
        assert service.running == 0 and ask(port)[0] == 200


def test_bodies_of_many_at_once_are_bounded():
    service = FakeService(Limits(body_bytes=1000, candidates=1, rows=1, waiting=1))
    with listening(service, body_seconds=20) as port:
        held = [connect(port) for _ in range(3)]
        for connection in held:
            connection.sendall(request(body={"prompt": " " * 890})[:-1])
        (refused,) = select.select(held, [], [], 20)[0]
        status, head, _ = answer_of(refused)
        assert status == 429 and b"retry-after: 1\r\n" in head
        assert ask(port)[0] == 200  # there is room for a small one
        for connection in held:
            connection.close()
        until(lambda: ask(port, body={"prompt": "x" * 900})[0] == 200)


def test_who_is_slow_to_send_takes_no_place():
    service = FakeService(Limits(candidates=1, rows=1, waiting=1), pause=60)
    looked_up = {"path": "/api/documents", "body": {"prompt": "a fox", "count": 1}}
    with listening(service, body_seconds=20) as port:
        slow = [connect(port) for _ in range(9)]
        for connection in slow:
            connection.sendall(request()[:-1])
        working = [connect(port) for _ in range(2)]
        for connection in working:
            connection.sendall(request(**looked_up))
        until(lambda: service.looking == 2)
        status, head, _ = ask(port, **looked_up)
        assert status == 429 and b"retry-after: 1\r\n" in head
        for connection in (*slow, *working):
            connection.close()
        until(lambda: not service.looking)


def test_what_is_no_http_is_refused():
    with listening(FakeService()) as port:
        for content in (
            b"\0" * 1000,
            b"GET / HTTP/1.1\r\n\r\n",
            b"GET /" + b"a" * 200_000,
            b"GET / HTTP/1.1\r\nHost: localhost\r\n" + b"A: b\r\n" * 100_000,
            b"POST /api/draw HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1\r\n"
            b"Transfer-Encoding: chunked\r\nContent-Length: 2\r\n\r\n",
        ):
            with connect(port) as connection:
                connection.sendall(content)
                assert b"400" in connection.recv(1000)
        assert ask(port)[0] == 200


def test_the_end_of_the_service_is_the_end_of_its_answers():
    service = FakeService(pause=1)
    found = []

    def read(headers):
        found.append(ask(port, headers=headers))

    with listening(service) as port:
        threads = [threading.Thread(target=read, args=(headers,)) for headers in (SSE, "")]
        for thread in threads:
            thread.start()
        until(lambda: service.running == 2)
        time.sleep(1.2)  # the stream has begun
        begun = time.monotonic()
    assert time.monotonic() - begun < 5
    for thread in threads:
        thread.join()
    (whole,) = [answer for answer in found if answer[0] == 503]
    (stream,) = [answer for answer in found if answer[0] == 200]
    assert json.loads(whole[2])["error"]["code"] == "stopped"
    assert b"event: error\n" in stream[2] and b'"stopped"' in stream[2]


PROGRAM = """
import signal
import sys
from cm3_imagetok.exit_status import exit_status
from cm3leon.serving.server import bind, serve, url_of
from fake_service import FakeService

def main():
    with bind("127.0.0.1", 0) as bound:
        serve(FakeService(pause=60), bound, announce=lambda: print(url_of(bound, "127.0.0.1"),
              flush=True))

signal.signal(signal.SIGINT, signal.default_int_handler)  # which a shell's job may ignore
sys.exit(exit_status(main, "error", interrupted="stopped"))
"""


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_server_and_not_its_answers(root, number):
    code = f"import sys; sys.path.insert(0, {str(root / 'tests/support')!r})\n{PROGRAM}"
    pipe = subprocess.PIPE
    with subprocess.Popen([sys.executable, "-c", code], stdout=pipe, stderr=pipe, text=True) as run:
        assert run.stdout and run.stderr
        port = int(run.stdout.readline().rsplit(":", 1)[1])
        with connect(port) as connection:
            connection.sendall(request(headers=SSE))
            time.sleep(0.5)
            run.send_signal(number)
            assert answer_of(connection)[0] == 503
        said = run.stderr.read()
        status = run.wait(20)
    assert "Traceback" not in said
    assert status == (130 if number == signal.SIGINT else -signal.SIGTERM)
