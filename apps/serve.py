"""Serve a trained run: a page to draw with, and an HTTP service.

    python apps/serve.py --run runs/tiny
    python apps/serve.py --run runs/tiny --port 0 --rows 16
    python apps/serve.py --host 0.0.0.0 --allow-host draw.example.org --token-file token.txt

The page is at the address that is printed, the interface's description at /openapi.json; OpenAI's
clients draw at /v1. It listens to this machine alone unless told otherwise. Ctrl-C ends it.

A run's folder is data, but its recipe may name code: that of others runs with --trust alone.
"""

from __future__ import annotations

import sys

from cm3_imagetok.exit_status import exit_status
from cm3leon.serve_options import parse


def main(arguments: list[str] | None = None) -> int:
    """Run; gives the exit status."""
    given = parse(__doc__, arguments)

    from cm3leon.serving.server import bind, serve, url_of
    from cm3leon.serving.service import open_service

    hosts = [given.host, *given.allow_host]
    with bind(given.host, given.port) as bound:
        url = url_of(bound, hosts[-1])
        service = open_service(
            given.run, given.device, given.limits, dtype=given.dtype, trust=given.trust
        )
        serve(
            service,
            bound,
            hosts=hosts,
            token=given.token,
            announce=lambda: print(f"{given.run}: {url}", flush=True),
        )
    return 0


if __name__ == "__main__":
    failures = (OSError, ValueError, FloatingPointError)
    sys.exit(exit_status(main, "error", failures=failures, interrupted="stopped"))
