"""What the benchmarks share: timing in alternating rounds, facts about the machine, the report."""

from __future__ import annotations

import json
import os
import platform
import re
import statistics
import time
from collections.abc import Callable, Mapping
from pathlib import Path

Seconds = dict[str, list[float]]
"""Seconds of each call, one number per round."""


def alternate(
    calls: Mapping[str, Callable[[], object]],
    rounds: int,
    *,
    warm_up: bool = True,
    at_least: int = 1,
    budget: float = float("inf"),
) -> Seconds:
    """Time calls in rounds: each round runs every call once, beginning with another one.

    What else runs on the machine then slows all of them alike.

    Args:
        calls: What to time, by name.
        rounds: Number of rounds.
        warm_up: Begin with a round that does not count.
        at_least: Number of rounds to run whatever they take.
        budget: Seconds; a further round that would go beyond is left out.
    """
    names = list(calls)
    if warm_up:
        for name in names:
            calls[name]()
    taken: Seconds = {name: [] for name in names}
    began = time.perf_counter()
    for done in range(rounds):
        spent = time.perf_counter() - began
        if done >= at_least and spent / done * (done + 1) > budget:
            break
        first = done % len(names)
        for name in names[first:] + names[:first]:
            start = time.perf_counter()
            calls[name]()
            taken[name].append(time.perf_counter() - start)
    return taken


def medians(taken: Seconds) -> dict[str, float]:
    """Return the median seconds of each call."""
    return {name: statistics.median(seconds) for name, seconds in taken.items()}


def speedup(taken: Seconds, ours: str, theirs: str) -> float:
    """Return how many times as fast `ours` is as `theirs`: the median over the rounds."""
    pairs = zip(taken[theirs], taken[ours], strict=True)
    return statistics.median(their / our for their, our in pairs)


def machine_facts(threads: int) -> dict[str, object]:
    """Return what the figures depend on: the kind of machine, its processor, cores, threads."""
    return {
        "machine": f"{platform.machine()}, {threads} threads",
        "processor": processor(),
        "cores": os.cpu_count(),
    }


def processor() -> str:
    """Return the processor's name, where Linux tells it."""
    try:
        found = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
    except OSError:
        found = None
    return found[1] if found else platform.processor()


def report(table: Mapping[str, object], out: Path | None) -> None:
    """Print the figures, one a line, and write them as JSON if `out` is given."""
    for name, value in table.items():
        print(f"{name:36} {value:.5g}" if isinstance(value, float) else f"{name:36} {value}")
    if out:
        out.write_text(json.dumps(table, indent=2) + "\n")
