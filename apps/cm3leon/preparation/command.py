"""The command line of apps/prepare.py: a recipe's, and the options of a preparation."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path

import jsonargparse

from cm3leon.preparation.job import Preparation, share_of
from cm3leon.recipe import Recipe
from cm3leon.recipe_file import RECIPE_FILE, recipe_from, recipe_parser


def read_options(
    description: str | None, arguments: Sequence[str] | None = None
) -> tuple[Recipe, Preparation, int | None]:
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
    sample = given.pop("sample")
    values = {field.name: given.pop(field.name) for field in fields(Preparation)}
    for name in ("source", "folder"):
        if values[name] is None:
            parser.error(f"--{name}: wanted a folder, got none")
    if values["licences"] is not None:
        values["licences"] = tuple(name for name in values["licences"].split(",") if name.strip())
    try:
        values["max_bad"] = share_of(values["max_bad"])
        return recipe_from(parser, given), Preparation(**values), sample
    except ValueError as error:
        parser.error(str(error))


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
    add("--source", type=Path, help="folder of raw pairs: imagefolder, tars or Parquet")
    add("--folder", type=Path, help="folder to make; pretrain.py takes it as --data.prepared")
    add("--parts", type=Path, help="run whose tokenizers and encoder are taken")
    add("--workers", type=int, default=os.cpu_count() or 1, help="processes; default: one a core")
    add("--engine", default="local", help="local, or ray for a cluster")
    add("--attempts", type=int, default=3, help="tries of a shard whose worker died")
    add("--max-bad", default="1%", help="share of records that may be unusable")
    add("--licences", help="names with commas between them: let only these in")
    add("--fit", default="crop", help="how a picture becomes square: crop, pad or stretch")
    add("--near-bits", type=int, default=3, help="bits of 64 in which copies may differ")
    add("--drop-duplicates", action="store_true", help="keep only the first of near copies")
    add("--pictures", type=int, default=256, help="pictures a split kept as pixels for reports")
    add("--sample", type=int, help="only write an imagefolder of so many pairs, to train parts on")
    add("--trust", action="store_true", help="the recipe of --parts may name code of others")
