"""The command itself: killed while it draws, started again, and under many clients at once."""

import contextlib
import hashlib
import http.client
import json
import shutil
import signal
import subprocess
import sys
import time
from urllib.parse import urlparse

import pytest
import warm

pytestmark = pytest.mark.slow


@contextlib.contextmanager
def served(root, run, *options):
    """Give apps/serve.py in a process of its own, and its address."""
    command = [sys.executable, str(root / "apps/serve.py"), "--run", str(run), "--port", "0"]
    with warm.Popen([*command, *options], cwd=root) as server:
        end = time.monotonic() + 120
        while "http" not in (said := server.said()[0]):
            assert server.poll() is None and time.monotonic() < end, server.said()
            time.sleep(0.05)
        yield server, urlparse(said[said.index("http") :].strip()).netloc


@contextlib.contextmanager
def ask(host, body, **headers):
    """Send a request to draw; give the answer, whose body is not read yet."""
    client = http.client.HTTPConnection(host, timeout=60)
    headers = {"Content-Type": "application/json"} | headers
    try:
        client.request("POST", "/api/draw", json.dumps(body), headers)
        with client.getresponse() as answer:
            yield answer
    finally:
        client.close()


def hashes(folder):
    """Return what lies in a folder."""
    return {
        path: hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def test_a_server_that_is_killed_leaves_nothing_half_done(root, smoke_run, tmp_path):
    run = tmp_path / "smoke"
    shutil.copytree(smoke_run, run)
    before = hashes(run)
    body = {"prompt": "red apple", "candidates": 4, "seed": 5}
    with served(root, run) as (server, host):
        with ask(host, body) as answer:
            whole = json.loads(answer.read())
        with ask(host, body | {"candidates": 16}, Accept="text/event-stream") as answer:
            first = answer.readline()
            assert answer.status == 200 and first.startswith(b"event: ")
            server.send_signal(signal.SIGKILL)
            # the stream is cut: no client takes it for a finished one
            seen = []
            with contextlib.suppress(http.client.IncompleteRead, ConnectionError):
                while line := answer.readline():
                    seen.append(line)
            assert b"event: pictures\n" not in seen
        server.wait()
        with pytest.raises(ConnectionError), ask(host, body):
            pass
    assert hashes(run) == before
    with served(root, run) as (_, host), ask(host, body) as answer:
        again = json.loads(answer.read())
    assert again == whole
    assert hashes(run) == before


def test_many_clients_at_once_get_their_own_pictures(root, smoke_run, tmp_path):
    """The benchmark in short: some leave, some stammer, the queue stays within its bound."""
    out = tmp_path / "serve.json"
    options = ["--rounds", "1", "--requests", "60", "--clients", "24"]
    options += ["--rows", "16", "--waiting", "8", "--out", str(out)]
    command = [sys.executable, "benchmarks/serve.py", "--run", str(smoke_run), *options]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found = json.loads(out.read_text())
    assert found["storm_wrong"] == 0, done.stderr
    assert found["storm_answered"] and found["storm_malformed"]
    assert found["storm_most_waiting"] <= 8
    assert found["together_over_one_by_one"] > 0
    assert found["exit_status"] == -signal.SIGTERM
