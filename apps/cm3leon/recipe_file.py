"""Recipes as command lines and YAML files, and parts that a recipe names by their class."""

from __future__ import annotations

import importlib
import inspect
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, TypeVar

import jsonargparse
import yaml

from cm3_train.artifact import atomic_file
from cm3leon.recipe import DecoderRecipe, ImageRecipe, Recipe

RECIPE_FILE = "recipe.yaml"
MINUTES = 15
"""What the default recipe is made for."""
Trained = TypeVar("Trained", ImageRecipe, DecoderRecipe)


def recipe_parser(description: str | None, base: Path | None = None) -> jsonargparse.ArgumentParser:
    """Return the command line of a recipe: `--config`, dotted overrides, `--print_config`.

    Args:
        description: Stands in `--help`.
        base: The recipe to use where no `--config` is given.
    """
    parser = jsonargparse.ArgumentParser(
        description=description, default_config_files=[str(base)] if base else None
    )
    parser.add_argument("--config", action="config", help="a recipe in YAML; later ones override")
    parser.add_class_arguments(Recipe, nested_key=None, as_positional=False)
    return parser


def read_command(
    description: str | None, default: Path, arguments: Sequence[str] | None = None
) -> Recipe:
    """Return the recipe of a command line; ends the program with a message if it is wrong.

    Args:
        description: Stands in `--help`.
        default: The recipe of a command line that names none.
        arguments: Default: those of the program.
    """
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    named = any(a == "--config" or a.startswith("--config=") for a in arguments)
    parser = recipe_parser(description, None if named else default)
    parser.add_argument(
        "--minutes",
        type=int,
        help=f"scale the default recipe, made for {MINUTES} minutes on two CPU cores, to as many",
    )
    given = parser.parse_args(arguments)
    minutes = given.pop("minutes")
    recipe = _recipe(parser, given)
    if minutes is None:
        return recipe
    if named or minutes < 1:
        parser.error(
            f"--minutes: wanted a number of at least 1, and the default recipe without --config, "
            f"got {minutes}"
        )
    return scaled(recipe, minutes)


def scaled(recipe: Recipe, minutes: int) -> Recipe:
    """Return the default recipe with more or fewer steps, in a run folder of its own.

    Steps of all three trainings follow the time. Figures are computed on fewer drawings where there
    is less time, on no more where there is more.
    """
    share = minutes / MINUTES

    def steps(count: int, most: float = float("inf")) -> int:
        return max(1, round(count * min(share, most)))

    def trained(part: Trained) -> Trained:
        total = max(part.optim.warmup_steps + 1, steps(part.optim.total_steps))
        optim = replace(part.optim, total_steps=total)
        return replace(part, optim=optim, val_every=steps(part.val_every))

    clip, drawn = recipe.retrieval.clip, recipe.evaluation
    return replace(
        recipe,
        name=recipe.name if minutes == MINUTES else f"{recipe.name}-{minutes}",
        imagetok=trained(recipe.imagetok),
        retrieval=replace(recipe.retrieval, clip=replace(clip, steps=steps(clip.steps))),
        decoder=trained(recipe.decoder),
        evaluation=replace(
            drawn,
            sweep_samples=steps(drawn.sweep_samples, 1),
            samples=steps(drawn.samples, 1),
            control_samples=steps(drawn.control_samples, 1),
        ),
    )


def save_recipe(recipe: Recipe, folder: Path) -> None:
    """Write `recipe.yaml`, whole or not at all; every value stands in it."""
    text = yaml.safe_dump(_plain(asdict(recipe)), sort_keys=False)
    with atomic_file(folder / RECIPE_FILE) as file:
        file.write(text.encode())


def read_recipe(folder: Path) -> Recipe:
    """Return the recipe that a run was made with; its folder is the one given, wherever it is now.

    Raises:
        FileNotFoundError: There is no run.
        ValueError: The file is no recipe of this version.
    """
    path = folder / RECIPE_FILE
    if not path.is_file():
        raise FileNotFoundError(f"{folder}: no run; wanted one that apps/pretrain.py has made")
    parser = recipe_parser(None)
    parser.exit_on_error = False
    try:
        recipe = _recipe(parser, parser.parse_args(["--config", str(path)]))
    except jsonargparse.ArgumentError as error:
        raise ValueError(f"{path}: {error}") from None
    return replace(recipe, runs=folder.parent, name=folder.name)


def part_of(spec: dict[str, Any]) -> Any:
    """Make the part that a recipe names: `{class_path: package.Class, init_args: {...}}`.

    Any callable will do, such as `cm3_imagetok.load_vqgan`; jsonargparse's own loader takes
    subclasses of a base class alone, and our Protocols have none.

    Raises:
        ValueError: There is no such callable, or it does not take the arguments.
    """
    path, arguments = spec.get("class_path", ""), spec.get("init_args", {})
    module, _, name = path.rpartition(".")
    try:
        make = getattr(importlib.import_module(module), name)
        inspect.signature(make).bind(**arguments)
    except (ImportError, AttributeError, ValueError, TypeError) as error:
        raise ValueError(
            f"class_path: wanted package.Class, got {path!r} with {arguments} ({error})"
        ) from None
    return make(**arguments)


def fingerprint_of_part(spec: dict[str, Any]) -> str:
    """Return what a named part is made from: class, arguments, and the files that they name."""
    files = []
    for value in spec.get("init_args", {}).values():
        path = Path(value) if isinstance(value, str) else None
        if path is not None and path.exists():
            inside = sorted(path.rglob("*")) if path.is_dir() else [path]
            files += [(str(f), f.stat().st_size, f.stat().st_mtime_ns) for f in inside]
    return json.dumps([spec, files], sort_keys=True)


def _recipe(parser: jsonargparse.ArgumentParser, namespace: jsonargparse.Namespace) -> Recipe:
    values = parser.instantiate(namespace).as_dict()
    values.pop("config", None)
    return Recipe(**values)


def _plain(value: Any) -> Any:
    """Return what YAML has words for."""
    if isinstance(value, dict):
        return {name: _plain(content) for name, content in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(content) for content in value]
    return str(value) if isinstance(value, Path) else value
