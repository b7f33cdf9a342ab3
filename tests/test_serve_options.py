"""What `apps/serve.py` may be told, and where it refuses to listen."""

import socket

import pytest

from cm3leon.serve_options import is_loopback, parse
from cm3leon.serving.limits import Limits
from cm3leon.serving.server import bind, url_of

TOKEN = "correct-horse-battery"


def test_without_options_only_this_machine_can_come():
    given = parse(None, [], {})
    assert (given.host, given.port, given.token, given.allow_host) == ("127.0.0.1", 8000, None, [])
    assert given.limits == Limits()
    assert not given.trust
    assert given.dtype is None and parse(None, ["--dtype", "bfloat16"], {}).dtype == "bfloat16"


def test_limits_are_options():
    given = parse(None, "--rows 4 --waiting 9 --seconds 2.5".split(), {})
    assert given.limits == Limits(rows=4, waiting=9, seconds=2.5, candidates=4)
    assert parse(None, "--rows 4 --candidates 2".split(), {}).limits.candidates == 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("--port 65536", "--port: wanted 0 to 65535, got 65536"),
        ("--dtype int8", "--dtype: invalid choice: 'int8'"),
        ("--port -1", "--port: wanted 0 to 65535, got -1"),
        ("--rows 0", "--rows: wanted a number above 0, got 0"),
        ("--rows 4 --candidates 5", "--candidates: wanted at most the 4 rows, got 5"),
        ("--seconds nan", "--seconds: wanted a number above 0, got nan"),
        ("--seconds inf", "--seconds: wanted a number above 0, got inf"),
        ("--seconds -1", "--seconds: wanted a number above 0, got -1"),
        ("--host 192.168.0.7", "--host: 192.168.0.7 can be reached from other machines"),
        ("--host 0.0.0.0 --without-token", "--host: 0.0.0.0 is no name; wanted --allow-host"),
        ("--host example.org", "--host: example.org can be reached from other machines"),
        ("--without-token", "--without-token does nothing with --host 127.0.0.1"),
        ("--token-file no/such/file", "--token-file: no/such/file: No such file"),
        ("--token correct-horse", "unrecognized arguments"),
    ],
)
def test_options_that_are_wrong_are_named(capsys, arguments, message):
    with pytest.raises(SystemExit) as end:
        parse(None, arguments.split(), {})
    assert end.value.code == 2
    assert message in capsys.readouterr().err


def test_a_token_opens_other_addresses(tmp_path):
    file = tmp_path / "token"
    file.write_text(f"{TOKEN}\n")
    here = ["--host", "192.168.0.7"]
    assert parse(None, [*here, "--token-file", str(file)], {}).token == TOKEN
    assert parse(None, here, {"CM3_TOKEN": TOKEN}).token == TOKEN
    assert parse(None, [*here, "--without-token"], {}).token is None
    given = parse(None, ["--host", "::", "--allow-host", "a", "--allow-host", "b"],
                  {"CM3_TOKEN": TOKEN})  # fmt: skip
    assert given.allow_host == ["a", "b"]


@pytest.mark.parametrize("token", ["", "short", "with spaces in the middle", "x" * 15, "é" * 20])
def test_a_token_is_long_and_not_shown(tmp_path, capsys, token):
    file = tmp_path / "token"
    file.write_text(token, encoding="utf-8")
    for arguments, environment in (
        (["--token-file", str(file)], {}),
        ([], {"CM3_TOKEN": token}),
    ):
        with pytest.raises(SystemExit):
            parse(None, arguments, environment)
        said = capsys.readouterr().err
        assert "wanted at least 16 characters" in said
        assert not token or token not in said


def test_a_token_that_would_change_nothing_is_an_error(capsys):
    with pytest.raises(SystemExit):
        parse(None, ["--host", "10.0.0.1", "--without-token"], {"CM3_TOKEN": TOKEN})
    assert "--without-token does nothing with" in capsys.readouterr().err


def test_loopback_is_this_machine():
    assert all(map(is_loopback, ("127.0.0.1", "127.8.8.8", "::1", "localhost")))
    assert not any(map(is_loopback, ("0.0.0.0", "::", "10.0.0.1", "example.org", "")))


def test_an_address_is_taken_before_anything_is_loaded():
    with bind("127.0.0.1", 0) as bound:
        port = bound.getsockname()[1]
        assert url_of(bound, "127.0.0.1") == f"http://127.0.0.1:{port}"
        for host in ("::1", "[::1]"):
            assert url_of(bound, host) == f"http://[::1]:{port}"
        bound.listen()
        with pytest.raises(OSError, match=f"127.0.0.1 port {port}: Address already in use"):
            bind("127.0.0.1", port)
    with pytest.raises(OSError, match="192.0.2.1 port 0: Cannot assign"):
        bind("192.0.2.1", 0)
    assert isinstance(bound, socket.socket)
