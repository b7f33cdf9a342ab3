"""Prometheus figures of a service; each application has a registry of its own."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST

CONTENT_TYPE = CONTENT_TYPE_LATEST
_SECONDS = (0.005, 0.025, 0.1, 0.5, 1, 2.5, 5, 10, 20, 40, 80, 160)
_GAUGES = {
    "waiting": "Requests that wait for free rows",
    "rows": "Candidates that are being drawn",
    "sessions": "Sessions that are remembered",
}


class Metrics:
    """Figures of one service."""

    def __init__(self, counts: Callable[[], dict[str, int]]) -> None:
        """Start at nothing; `counts` gives the service's own numbers whenever somebody looks."""
        self._registry = registry = CollectorRegistry()
        self._requests = Counter(
            "cm3_requests", "Answers by route", ("route", "status"), registry=registry
        )
        self._seconds = Histogram(
            "cm3_request_seconds", "Time of an answer", ("route",), registry=registry,
            buckets=_SECONDS,
        )  # fmt: skip
        self._candidates = Counter(
            "cm3_candidates", "Finished pictures and texts", ("kind",), registry=registry
        )
        self._refused = Counter(
            "cm3_refused", "Errors by their code", ("reason",), registry=registry
        )
        self._cancelled = Counter(
            "cm3_cancelled", "Requests whose client went away", registry=registry
        )
        for name, text in _GAUGES.items():
            gauge = Gauge(f"cm3_{name}", text, registry=registry)
            gauge.set_function(partial(lambda key: counts()[key], name))

    def answered(self, route: str, status: int, seconds: float) -> None:
        """Count a request; `route` is a template, of which there are few."""
        self._requests.labels(route, str(status)).inc()
        self._seconds.labels(route).observe(seconds)

    def refused(self, code: str) -> None:
        """Count an error."""
        self._refused.labels(code).inc()

    def cancelled(self) -> None:
        """Count a client that did not wait for its answer."""
        self._cancelled.inc()

    def made(self, kind: str, candidates: int) -> None:
        """Count finished candidates: "pictures" or "texts"."""
        self._candidates.labels(kind).inc(candidates)

    def text(self) -> bytes:
        """Return all figures in Prometheus' format."""
        return generate_latest(self._registry)
