"""The command line of `apps/serve.py`; imports nothing heavy."""

from __future__ import annotations

import argparse
import ipaddress
import math
import os
from collections.abc import Mapping
from pathlib import Path

from cm3leon.generate_options import DTYPE_HELP, DTYPES
from cm3leon.serving.limits import Limits

VARIABLE = "CM3_TOKEN"
SHORTEST_TOKEN = 16
LIMITS = {
    "rows": "candidates that are drawn at the same time",
    "waiting": "requests that wait for free rows; the next one is told to come again later",
    "candidates": "pictures or texts of one request",
    "seconds": "time of one request, waiting included",
}
"""Fields of `Limits` that are options."""


def parse(
    description: str | None,
    arguments: list[str] | None = None,
    environment: Mapping[str, str] = os.environ,
) -> argparse.Namespace:
    """Return the options, or end with a message that names the wrong one.

    `token` and `limits` are made of what is given.
    """
    command = argparse.ArgumentParser(
        description=description,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,  # --token would be --token-file, with the token for its name
    )
    add = command.add_argument
    add("--run", type=Path, default=Path("runs/tiny"), help="folder of a run")
    add("--device", default="auto", help="auto, cpu, cuda, cuda:N or mps")
    add("--dtype", choices=DTYPES, help=DTYPE_HELP)
    add("--host", default="127.0.0.1", help="address to listen at; default: this machine alone")
    add("--port", type=int, default=8000, help="default: 8000; 0: any free one")
    add(
        "--allow-host",
        action="append",
        default=[],
        metavar="NAME",
        help="another name or address under which clients come, without the port",
    )
    add(
        "--token-file",
        type=Path,
        metavar="FILE",
        help=f"file of a token that clients have to show; or in the variable {VARIABLE}",
    )
    add(
        "--without-token",
        action="store_true",
        help="let whoever reaches --host draw, where that is not this machine alone",
    )
    for name, text in LIMITS.items():
        default = getattr(Limits(), name)
        add(f"--{name}", type=type(default), help=f"{text}; default: {default:g}")
    add(
        "--trust",
        action="store_true",
        help="let the run's recipe name classes that are not ours: they may do whatever you may",
    )
    given = command.parse_args(arguments)
    try:
        given.token = token_of(given, environment)
        check(given)
        given.limits = limits_of(given)
    except ValueError as error:
        command.error(f"--{error}")
    return given


def token_of(given: argparse.Namespace, environment: Mapping[str, str]) -> str | None:
    """Return the token that clients have to show, or None.

    Raises:
        ValueError: It cannot be read, or is none; does not say what it is.
    """
    if given.token_file is not None:
        try:
            token = given.token_file.read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            reason = getattr(error, "strerror", None) or "no text"
            raise ValueError(f"token-file: {given.token_file}: {reason}") from None
    elif (token := environment.get(VARIABLE)) is None:
        return None
    if len(token) < SHORTEST_TOKEN or not all("!" <= c <= "~" for c in token):
        raise ValueError(
            f"token-file or {VARIABLE}: wanted at least {SHORTEST_TOKEN} characters of ASCII "
            f"without spaces, got {len(token)} characters"
        )
    return token


def check(given: argparse.Namespace) -> None:
    """Refuse options that do not go together.

    Raises:
        ValueError: Begins with the option's name.
    """
    if not 0 <= given.port <= 65535:
        raise ValueError(f"port: wanted 0 to 65535, got {given.port}")
    inside = is_loopback(given.host)
    if given.without_token and (given.token is not None or inside):
        beside = (
            f"--token-file or {VARIABLE}" if given.token is not None else f"--host {given.host}"
        )
        raise ValueError(f"without-token does nothing with {beside}")
    if not inside and given.token is None and not given.without_token:
        raise ValueError(
            f"host: {given.host} can be reached from other machines; wanted --token-file FILE or "
            f"{VARIABLE}, or --without-token"
        )
    if given.host in ("0.0.0.0", "::") and not given.allow_host:
        raise ValueError(
            f"host: {given.host} is no name; wanted --allow-host NAME, under which clients come"
        )


def limits_of(given: argparse.Namespace) -> Limits:
    """Return the limits that are given, and the usual others.

    Raises:
        ValueError: One is out of range, or they do not go together; begins with an option's name.
    """
    chosen = {name: getattr(given, name) for name in LIMITS if getattr(given, name) is not None}
    if not math.isfinite(chosen.get("seconds", 0.0)):
        raise ValueError(f"seconds: wanted a number above 0, got {given.seconds}")
    if 0 < chosen.get("rows", 0) < Limits().candidates:
        chosen.setdefault("candidates", chosen["rows"])
    return Limits(**chosen)


def is_loopback(host: str) -> bool:
    """Return whether an address can be reached from this machine alone."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
