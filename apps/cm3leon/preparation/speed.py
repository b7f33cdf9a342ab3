"""How long a preparation took, and how much memory: all that is not the same each time."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from cm3_retrieval.sealed_folder import MANIFEST_NAME
from cm3_train.process_memory import peak_bytes
from cm3leon.preparation.decisions import encoded
from cm3leon.preparation.job import Job
from cm3leon.preparation.worker import finished
from cm3leon.stages import read_object

SPEED_FILE = "speed.json"
"""Seconds and memory of the last leg; all other files are the same each time."""


class Clock:
    """The seconds of each step."""

    def __init__(self) -> None:
        self.laps: dict[str, float] = {}
        self._last = time.perf_counter()

    def lap(self, name: str) -> None:
        """Note the seconds since the last lap."""
        now = time.perf_counter()
        self.laps[name], self._last = now - self._last, now


def speed(job: Job, shards: int, seconds: dict[str, float]) -> dict[str, Any]:
    """Return how long the work took, and the processes' peaks of memory."""

    def manifests_of(place: Callable[[Path, int], Path]) -> list[dict[str, Any]]:
        return [read_object(place(job.work, n) / MANIFEST_NAME) for n in range(shards)]

    manifests, others = manifests_of(encoded), manifests_of(finished)
    encoding = sum(manifest["seconds"] for manifest in manifests)
    return {
        "records": sum(manifest["counts"].get("records", 0) for manifest in manifests),
        "seconds": seconds,
        "encode_worker_seconds": encoding,
        "models_share": sum(m["model_seconds"] for m in manifests) / max(encoding, 1e-9),
        "driver_peak_bytes": peak_bytes(),
        "encode_peak_bytes": max(manifest["peak_bytes"] for manifest in manifests),
        "finish_peak_bytes": max(manifest["peak_bytes"] for manifest in others),
        "workers": job.options.workers,
        "engine": job.options.engine,
    }
