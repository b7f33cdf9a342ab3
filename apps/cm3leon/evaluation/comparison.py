"""Two results side by side: which differences are more than chance, and which cannot be told."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from cm3_train.artifact import atomic_file, check_stamp
from cm3leon.evaluation.examine import COMPONENT, INTERFACE_VERSION, RESULT_FILE, VALUES_FILE
from cm3leon.evaluation.measures.intervals import bootstrap_difference
from cm3leon.stages import read_object


def compare(one: Path, other: Path, out: Path | None = None) -> str:
    """Return a table of two results.

    Figures are compared where both results asked for the same records and used the same tools. The
    difference has an interval where the figure is a mean over records: of the paired difference,
    by 10,000 resamples; without 0 in it, more than chance of these records alone.

    Args:
        one: A run, the folder of its evaluation, or `result.json`.
        other: Another.
        out: Where the table is written, too.

    Raises:
        FileNotFoundError: There is no result.
        ValueError: A file is no result of this version, or the two have no task in common.
    """
    paths = [_result(one), _result(other)]
    results = [
        check_stamp(read_object(path, "tasks", "run"), COMPONENT, INTERFACE_VERSION, path)
        for path in paths
    ]
    common = [name for name in results[0]["tasks"] if name in results[1]["tasks"]]
    if not common:
        raise ValueError(
            f"--compare: wanted tasks in common, got {', '.join(results[0]['tasks'])} and "
            f"{', '.join(results[1]['tasks'])}"
        )
    lines = [
        f"A: {results[0]['run']['name']} ({paths[0].parent})",
        f"B: {results[1]['run']['name']} ({paths[1].parent})\n",
        "| task | figure | A | B | B - A | 95 % | |",
        "|---|---|---|---|---|---|---|",
    ]
    for name in common:
        tasks = [result["tasks"][name] for result in results]
        reason = apart(*tasks)
        if reason:
            lines.append(f"| {name} | not compared: {reason} | | | | | |")
            continue
        values = [_values(path.parent / name / VALUES_FILE) for path in paths]
        for figure, a in tasks[0]["figures"].items():
            if figure not in tasks[1]["figures"]:
                continue
            b = tasks[1]["figures"][figure]
            within, verdict = _difference(*(found.get(figure) for found in values))
            lines.append(
                f"| {name} | {figure} | {a:.4g} | {b:.4g} | {b - a:+.4g} | {within} | {verdict} |"
            )
    table = "\n".join(lines) + "\n"
    if out is not None:
        with atomic_file(out) as file:
            file.write(table.encode())
    return table


def apart(one: Mapping[str, Any], other: Mapping[str, Any]) -> str:
    """Return why two results of a task cannot be compared, empty where they can."""
    if one["data_sha256"] != other["data_sha256"]:
        return f"other records ({one['records']} and {other['records']})"
    tools = {*one["tools"], *other["tools"]}
    differing = sorted(tool for tool in tools if one["tools"].get(tool) != other["tools"].get(tool))
    if differing:
        return "other " + ", ".join(differing)
    return ""


def _difference(one: np.ndarray | None, other: np.ndarray | None) -> tuple[str, str]:
    """Return the interval of the paired difference of values (N,), and what it says."""
    if one is None or other is None or one.shape != other.shape:
        return "", ""
    both = ~(np.isnan(one) | np.isnan(other))
    if both.sum() < 2:
        return "", ""
    found = bootstrap_difference(other[both], one[both], seed=0)
    verdict = "" if found.low <= 0 <= found.high else ("higher" if found.low > 0 else "lower")
    return f"{found.low:+.4g} to {found.high:+.4g}", verdict


def _result(path: Path) -> Path:
    for found in (path, path / RESULT_FILE, path / "evaluation" / RESULT_FILE):
        if found.is_file():
            return found
    raise FileNotFoundError(f"{path}: wanted a result of apps/evaluate.py, got none")


def _values(path: Path) -> dict[str, np.ndarray]:
    if not path.is_file():
        return {}
    with np.load(path, allow_pickle=False) as arrays:
        return {name: arrays[name] for name in arrays.files}
