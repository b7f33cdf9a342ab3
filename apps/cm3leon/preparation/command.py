"""The command line of apps/prepare.py: a recipe's, and the options of a preparation."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any, get_args

import jsonargparse

from cm3_texttok import PAPER_TASKS, Task
from cm3leon.instructions.features import NAMES
from cm3leon.instructions.task_file import read_task_file
from cm3leon.preparation.job import FeaturePreparation, Preparation, TaskPreparation, share_of
from cm3leon.recipe import Recipe
from cm3leon.recipe_file import RECIPE_FILE, recipe_from, recipe_parser

FOR_TASKS = ("from", "images", "feature_weights")
FOR_PAIRS = ("source", "near_bits", "drop_duplicates", "pictures", "sample")
"""Options that mean nothing for a task; those above mean nothing without one."""
Options = Preparation | TaskPreparation | FeaturePreparation


def read_options(
    description: str | None, arguments: Sequence[str] | None = None
) -> tuple[Recipe, Options, int | None]:
    """Return recipe, options, and the number of pairs of `--sample`; ends the program if wrong.

    The recipe is that of the run that `--parts` names, or of `--config`; dotted settings change it.

    Args:
        description: Stands in `--help`.
        arguments: Default: those of the program.
    """
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    parser = recipe_parser(description, _base(arguments))
    _add_options(parser)
    given = parser.parse_args(arguments)
    names = dict.fromkeys(f.name for kind in get_args(Options) for f in fields(kind))
    values = {name: given.pop(name) for name in (*names, "from", "task_file", "sample")}
    try:
        options = _options(values)
        return recipe_from(parser, given), options, values["sample"]
    except (OSError, ValueError) as error:
        parser.error(str(error))


def _options(values: dict[str, Any]) -> Options:
    """Return the options of one kind of preparation; those of the other are not given.

    Raises:
        ValueError: Names the option that is wrong.
    """
    values["max_bad"] = share_of(values["max_bad"])
    if values["licences"] is not None:
        values["licences"] = tuple(name for name in values["licences"].split(",") if name.strip())
    kind, source, others = Preparation, "source", FOR_TASKS
    weights = values["feature_weights"]
    if values["features"] is not None:
        if values["task"] is not None or values["task_file"] is not None:
            raise ValueError("--features: wanted it without --task, got both")
        kind, source, others = FeaturePreparation, "from", FOR_PAIRS
        values["features"] = _features(values["features"])
        values["feature_weights"] = None if weights is None else _weights(weights, values)
    elif values["task"] is not None or values["task_file"] is not None:
        kind, source, others = TaskPreparation, "from", FOR_PAIRS
        task = values["task"] = _task(values["task"], values["task_file"])
        if weights is not None:
            values["feature_weights"] = Path(weights.removeprefix(f"{task.name}="))
    for name in others:
        if values[name] is not None and values[name] is not False:
            way = "with" if kind is Preparation else "without"
            raise ValueError(f"--{name.replace('_', '-')}: wanted only {way} --task")
    for name in (source, "folder"):
        if values[name] is None:
            raise ValueError(f"--{name}: wanted a folder, got none")
    values["source"] = values[source]
    taken = {f.name: values[f.name] for f in fields(kind)}
    return kind(**{name: value for name, value in taken.items() if value is not None})


def _features(said: str) -> tuple[str, ...]:
    """Return the names with commas between them, each once.

    Raises:
        ValueError: There is no feature of a name.
    """
    names = tuple(dict.fromkeys(name.strip() for name in said.split(",")))
    for name in names:
        if name not in NAMES:
            raise ValueError(f"--features: wanted some of {', '.join(NAMES)}, got {name!r}")
    return names


def _weights(said: str, values: dict[str, Any]) -> dict[str, Path]:
    """Return the paths of `hed=FILE,depth=FOLDER`.

    Raises:
        ValueError: A part is not of that form, or of a feature that is not asked for.
    """
    found = {}
    for part in said.split(","):
        name, equals, path = part.strip().partition("=")
        if not equals or name not in values["features"]:
            raise ValueError(
                f"--feature-weights: wanted NAME=PATH with commas between them, NAME of "
                f"{', '.join(values['features'])}, got {part!r}"
            )
        found[name] = Path(path)
    return found


def _task(name: str | None, file: Path | None) -> Task:
    """Return the task of a name, or of a file.

    Raises:
        OSError: The file cannot be read.
        ValueError: There is none of that name, both are given, or the file has none.
    """
    if file is None:
        if name not in PAPER_TASKS:
            raise ValueError(f"--task: wanted one of {', '.join(PAPER_TASKS)}, got {name!r}")
        return PAPER_TASKS[name]
    if name is not None:
        raise ValueError("--task-file: wanted it without --task, got both")
    return read_task_file(file)


def _base(arguments: list[str]) -> Path | None:
    """Return the recipe of the run that `--parts` names."""
    for place, argument in enumerate(arguments):
        name, equals, value = argument.partition("=")
        if name == "--parts":
            run = value if equals else "".join(arguments[place + 1 : place + 2])
            path = Path(run) / RECIPE_FILE
            if not path.is_file():
                raise FileNotFoundError(f"{path}: no such file; wanted a run after --parts")
            return path
    return None


def _add_options(parser: jsonargparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--task", help="make a set of instructions of this task of the paper, such as vqa2")
    add("--task-file", type=Path, help="the same of a task of one's own: name, templates, outputs")
    add("--features", help="make a set for each of these features, such as canny,scribble,hed")
    add("--from", type=Path, help="folder of the task's files; see docs/instruction-data.md")
    add("--images", type=Path, help="the task's pictures lie below it; default: below --from")
    add("--feature-weights", help="of the network that makes the task's features; of several: "
        "hed=FILE,depth=FOLDER")  # fmt: skip
    add("--source", type=Path, help="folder of raw pairs: imagefolder, tars or Parquet")
    add("--folder", type=Path, help="folder to make; pretrain.py takes it as --data.prepared")
    add("--parts", type=Path, help="run whose tokenizers and encoder are taken")
    add("--workers", type=int, default=os.cpu_count() or 1, help="processes; default: one a core")
    add("--engine", default="local", help="local, or ray for a cluster")
    add("--attempts", type=int, default=3, help="tries of a shard whose worker died")
    add("--max-bad", default="1%", help="share of records that may be unusable")
    add("--licences", help="names with commas between them: let only these in")
    add("--fit", default="crop", help="how a picture becomes square: crop, pad or stretch")
    add("--near-bits", type=int, help="bits of 64 in which copies may differ; default: 3")
    add("--drop-duplicates", action="store_true", help="keep only the first of near copies")
    add("--pictures", type=int, help="pictures a split kept as pixels for reports; default: 256")
    add("--sample", type=int, help="only write an imagefolder of so many pairs, to train parts on")
    add("--trust", action="store_true", help="the recipe of --parts may name code of others")
