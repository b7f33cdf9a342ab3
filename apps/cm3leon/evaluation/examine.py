"""An evaluation: every task's outputs, figures, intervals, pictures, and one result.

    OUT/result.json       figures with their intervals, what they are, tools, versions, hashes
    OUT/table.md          the same as a table
    OUT/pictures.png      the first records of each task
    OUT/TASK/...          outputs, see `cm3leon.evaluation.outputs`
    OUT/TASK/values.npz   figures of each record, for `--compare`

The result has no times in it: two evaluations with one seed write the same bytes.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, is_dataclass
from importlib.metadata import version
from typing import Any

import numpy as np
import torch

from cm3_train import progress_bar
from cm3_train.artifact import atomic_file, stamp, write_json
from cm3leon import VERSION
from cm3leon.base_run import base_fingerprint
from cm3leon.evaluate_recipe import EvaluateRecipe
from cm3leon.evaluation.measures.intervals import bootstrap_mean
from cm3leon.evaluation.outputs import chunked
from cm3leon.evaluation.tasks import task_of
from cm3leon.evaluation.tasks.interface import EvaluationTask, Examined, Missing, Scores
from cm3leon.evaluation.tasks.opening import open_examined
from cm3leon.sheets import write_blocks
from cm3leon.stages import lock_folder

COMPONENT = "cm3leon/evaluation"
INTERFACE_VERSION = "1.0"
RESULT_FILE = "result.json"
VALUES_FILE = "values.npz"
TOOLS = ("torch", "numpy", "scipy", "pillow", "torch-fidelity", "open-clip-torch")
"""Libraries whose versions stand in a result."""


def evaluate(recipe: EvaluateRecipe, say: Callable[[str], None]) -> dict[str, Any]:
    """Evaluate a run; gives what `result.json` says.

    Args:
        recipe: Run, tasks, data.
        say: Takes one line for the user.

    Raises:
        ValueError: No task could be done; or as of `task_of` and `open_examined`.
    """
    tasks = {name: task_of(name, settings) for name, settings in recipe.tasks.items()}
    base_fingerprint(recipe.run)  # no folder is made beside a run that is not there
    lock_folder(recipe.folder)
    (recipe.folder / RESULT_FILE).unlink(missing_ok=True)  # values of tasks are about to change
    examined = open_examined(recipe)
    made_by = examined.made_by
    done: dict[str, Any] = {}
    sheets, left_out = [], {}
    for name, task in tasks.items():
        try:
            scores, facts = examine(recipe, examined, name, task, made_by)
        except Missing as error:
            say(f"{name}: left out: {error}")
            left_out[name] = str(error)
            continue
        for line in scores.without:
            say(f"{name}: {line}")
        if scores.sheet is not None:
            sheets.append((name, *scores.sheet))
        done[name] = facts
    if not done:
        raise ValueError(f"tasks: none could be done: {'; '.join(left_out.values())}")
    result = {
        **stamp(COMPONENT, INTERFACE_VERSION),
        "run": {"name": recipe.run.name, "fingerprint": made_by, "made_by": VERSION},
        "seed": recipe.seed,
        "tasks": done,
        "left_out": left_out,
        "machine": {"device": str(examined.parts.device), "threads": torch.get_num_threads()},
        "versions": {name: version(name) for name in TOOLS},
    }
    write_json(recipe.folder / RESULT_FILE, result)
    with atomic_file(recipe.folder / "table.md") as file:
        file.write(table_of(result).encode())
    if sheets:
        write_blocks(recipe.folder / "pictures.png", sheets)
    return result


def examine(
    recipe: EvaluateRecipe, examined: Examined, name: str, task: EvaluationTask, made_by: str
) -> tuple[Scores, dict[str, Any]]:
    """Make and score the outputs of one task; gives its scores, and its part of the result.

    Raises:
        Missing: As of `EvaluationTask.records`.
    """
    records = task.records(examined)
    data = hashlib.sha256(task.data(examined, records).encode()).hexdigest()
    settings = settings_of(task)
    said = {
        "run": made_by,
        "habits": asdict(examined.parts.habits),
        "guidance": examined.tuned and asdict(examined.tuned.recipe.guidance),
        "settings": settings,
        "data_sha256": data,
        "seed": recipe.seed,
        "batch_size": recipe.batch_size,
        "records": len(records),
    }
    with progress_bar(name, unit="record", leave=True) as progress:
        outputs = chunked(
            recipe.folder / name,
            said,
            len(records),
            recipe.batch_size,
            lambda first, stop: task.make(examined, records[first:stop], first),
            progress,
        )
    scores = task.score(examined, records, outputs)
    with atomic_file(recipe.folder / name / VALUES_FILE) as file:
        np.savez(file, allow_pickle=False, **scores.values)
    figures = {name: value for name, value in scores.figures.items() if np.isfinite(value)}
    intervals = {}
    for figure, values in scores.values.items():
        known = values[np.isfinite(values)]
        if figure in scores.figures and len(known) > 1:
            found = bootstrap_mean(known, seed=recipe.seed)
            intervals[figure] = [found.low, found.high]
    return scores, {
        "settings": settings,
        "records": len(records),
        "data_sha256": data,
        "figures": figures,
        "intervals": intervals,
        "how": {name: how_of(name, scores.how) for name in figures},
        "tools": dict(scores.tools),
        "without": list(scores.without),
    }


def how_of(figure: str, how: Mapping[str, str]) -> str:
    """Return what a figure is; of `accuracy.question.colour`, what `accuracy` is."""
    whole = max((name for name in how if f"{figure}.".startswith(f"{name}.")), key=len)
    part = figure.removeprefix(whole).removeprefix(".")
    return f"{how[whole]} Of these records: {part}." if part else how[whole]


def settings_of(task: EvaluationTask) -> dict[str, Any]:
    """Return a task's class and settings as JSON values."""
    kind = type(task)
    values = asdict(task) if is_dataclass(task) and not isinstance(task, type) else vars(task)
    return json.loads(
        json.dumps({"class": f"{kind.__module__}.{kind.__qualname__}", **values}, default=str)
    )


def table_of(result: Mapping[str, Any]) -> str:
    """Return a result as a table in Markdown."""
    lines = ["| task | figure | value | 95 % | records |", "|---|---|---|---|---|"]
    for name, found in result["tasks"].items():
        for figure, value in found["figures"].items():
            low_high = found["intervals"].get(figure)
            within = "" if low_high is None else f"{low_high[0]:.4g} to {low_high[1]:.4g}"
            lines.append(f"| {name} | {figure} | {value:.4g} | {within} | {found['records']} |")
    for name, why in result["left_out"].items():
        lines.append(f"| {name} | left out: {why} | | | |")
    lines += [
        f"\n{name}: {line}" for name, found in result["tasks"].items() for line in found["without"]
    ]
    return "\n".join(lines) + "\n"
