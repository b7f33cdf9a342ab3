"""Recipes as command lines and YAML files."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, fields, is_dataclass, replace
from pathlib import Path
from typing import Any, TypeVar, get_type_hints

import jsonargparse
import yaml

from cm3_train.artifact import atomic_file
from cm3leon.decoder_recipe import DecoderRecipe
from cm3leon.evaluate_recipe import EvaluateRecipe
from cm3leon.recipe import ImageRecipe, Recipe
from cm3leon.tuning_recipe import TuningRecipe

RECIPE_FILE = "recipe.yaml"
"""In a run's folder: what it is being made by. In its decoder's: what the decoder there was made
by, and is drawn with."""
TUNING_FILE = "tuning.yaml"
"""Beside a tuned run's recipe: how it was tuned."""
AT_LEAST_ONE = {
    "batch_size", "checkpoint_every", "num_masks", "sample_count", "size", "val_batch_size",
    "val_every", "val_records", "views", "vocab_size",
}  # fmt: skip
"""Settings that are counts or sides of something, wherever they stand in a recipe."""
MOST_SEED = 2**32 - 1
"""Largest seed: a step's own seed is made from it, and must be one of PyTorch's."""
MINUTES = 15
"""What the default recipe is made for."""
Trained = TypeVar("Trained", ImageRecipe, DecoderRecipe)
Kind = TypeVar("Kind", Recipe, TuningRecipe, EvaluateRecipe)


def recipe_parser(
    description: str | None, base: Path | None = None, kind: type = Recipe
) -> jsonargparse.ArgumentParser:
    """Return the command line of a recipe: `--config`, dotted overrides, `--print_config`.

    Args:
        description: Stands in `--help`.
        base: The recipe to use where no `--config` is given.
        kind: `Recipe`, or the `TuningRecipe`.
    """
    parser = jsonargparse.ArgumentParser(
        description=description,
        usage="%(prog)s [--config FILE] [--SETTING VALUE ...]",  # all of them fill a screen
        default_config_files=[str(base)] if base else None,
    )
    parser.add_argument("--config", action="config", help="a recipe in YAML; later ones override")
    parser.add_class_arguments(kind, nested_key=None, as_positional=False)
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
    parser, arguments, named = _command(description, default, arguments, Recipe)
    parser.add_argument(
        "--minutes",
        type=int,
        help=f"scale the default recipe, made for {MINUTES} minutes on two CPU cores, to as many",
    )
    given = parser.parse_args(arguments)
    _check_files(parser, given, Recipe)
    minutes = given.pop("minutes")
    recipe = recipe_from(parser, given)
    if minutes is None:
        return recipe
    if named or minutes < 1:
        parser.error(
            f"--minutes: wanted a number of at least 1, and the default recipe without --config, "
            f"got {minutes}"
        )
    return scaled(recipe, minutes)


def read_tuning_command(
    description: str | None, default: Path, arguments: Sequence[str] | None = None
) -> TuningRecipe:
    """Return the recipe of a command line of instruction tuning; arguments as of `read_command`."""
    parser, arguments, _ = _command(description, default, arguments, TuningRecipe)
    given = parser.parse_args(arguments)
    _check_files(parser, given, TuningRecipe)
    return recipe_from(parser, given, TuningRecipe)


def read_evaluate_command(
    description: str | None, default: Path, arguments: Sequence[str] | None = None
) -> tuple[EvaluateRecipe, tuple[Path, Path] | None, Path | None]:
    """Return the recipe of a command line of an evaluation, the results to compare, and `out`."""
    parser, arguments, _ = _command(description, default, arguments, EvaluateRecipe)
    parser.add_argument(
        "--compare",
        nargs=2,
        type=Path,
        metavar="RESULT",
        help="hold two results side by side: runs, their evaluation folders, or result.json files",
    )
    given = parser.parse_args(arguments)
    _check_files(parser, given, EvaluateRecipe)
    compared = given.pop("compare")
    recipe = recipe_from(parser, given, EvaluateRecipe)
    return recipe, tuple(compared) if compared else None, recipe.out


def _command(
    description: str | None, default: Path, arguments: Sequence[str] | None, kind: type
) -> tuple[jsonargparse.ArgumentParser, list[str], bool]:
    """Return a command's parser, its arguments, and whether they name a recipe by `--config`."""
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    named = any(a == "--config" or a.startswith("--config=") for a in arguments)
    return recipe_parser(description, None if named else default, kind), arguments, named


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


def save_recipe(recipe: Recipe | TuningRecipe, folder: Path, name: str = RECIPE_FILE) -> None:
    """Write `recipe.yaml`, whole or not at all; every value stands in it."""
    with atomic_file(folder / name) as file:
        file.write(said_recipe(recipe))


def said_recipe(recipe: Recipe | TuningRecipe) -> bytes:
    """Return a recipe as YAML; every value stands in it."""
    return yaml.safe_dump(_plain(asdict(recipe)), sort_keys=False).encode()


def read_recipe(folder: Path) -> Recipe:
    """Return the recipe that a run was made with; its folder is the one given, wherever it is now.

    Reading calls nothing that the file names (`cm3leon.named_parts` does, where it is allowed to).
    Where a decoder is finished, its own copy counts: the run's may be that of a training which was
    stopped before it began a new decoder.

    Raises:
        FileNotFoundError: There is no run.
        ValueError: The file is no recipe of this version.
    """
    path = _beside_decoder(folder, RECIPE_FILE)
    if not path.is_file():
        raise FileNotFoundError(f"{folder}: no run; wanted one that apps/pretrain.py has made")
    return replace(_read(path, Recipe), runs=folder.parent, name=folder.name)


def read_tuning(folder: Path) -> TuningRecipe:
    """Return the recipe that a run was tuned with; errors as of `read_recipe`."""
    path = _beside_decoder(folder, TUNING_FILE)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file; wanted a run that apps/sft.py has tuned")
    return replace(_read(path, TuningRecipe), runs=folder.parent, name=folder.name)


def _beside_decoder(folder: Path, name: str) -> Path:
    own = folder / "decoder" / name
    return own if own.is_file() else folder / name


def _read(path: Path, kind: type[Kind]) -> Kind:
    parser = recipe_parser(None, kind=kind)
    parser.exit_on_error = False
    try:
        # not libyaml, which jsonargparse takes: deep brackets end it without an error
        values = yaml.safe_load(path.read_bytes())
        if not isinstance(values, dict) or "config" in values:
            raise ValueError("wanted the settings of a recipe")
        _check_groups(values, kind)
        return recipe_from(parser, parser.parse_object(values), kind)
    except RecursionError:
        raise ValueError(f"{path}: wanted a recipe, got brackets in too many brackets") from None
    except (jsonargparse.ArgumentError, yaml.YAMLError, TypeError, ValueError) as error:
        raise ValueError(f"{path}: {error}") from None


def recipe_from(
    parser: jsonargparse.ArgumentParser,
    namespace: jsonargparse.Namespace,
    kind: type[Kind] = Recipe,
) -> Kind:
    """Return the recipe of parsed arguments.

    Raises:
        ValueError: A setting is out of its range; names it.
    """
    values = parser.instantiate(namespace).as_dict()
    values.pop("config", None)
    recipe = kind(**values)
    for name, value in _whole_numbers(recipe):
        least = 1 if name.rpartition(".")[2] in AT_LEAST_ONE else 0
        if value < least:
            raise ValueError(f"{name}: wanted at least {least}, got {value}")
        if name.endswith("seed") and value > MOST_SEED:
            raise ValueError(f"{name}: wanted at most {MOST_SEED}, got {value}")
    return recipe


def _check_files(
    parser: jsonargparse.ArgumentParser, given: jsonargparse.Namespace, kind: type
) -> None:
    """End the program where a `--config` has one value for a group of settings."""
    try:
        for file in given.config or []:
            _check_groups(yaml.safe_load(Path(file.absolute).read_bytes()), kind)
    except ValueError as error:
        parser.error(f"--config: {error}")


def _check_groups(values: dict[str, Any], kind: type, prefix: str = "") -> None:
    """Refuse one value where a group of settings belongs; jsonargparse leaves it out silently."""
    types = get_type_hints(kind)
    for name, value in values.items():
        group = types.get(name)
        if not (isinstance(group, type) and is_dataclass(group)):
            continue
        if not isinstance(value, dict):
            raise ValueError(f"{prefix}{name}: wanted settings by name, got {value!r}")
        _check_groups(value, group, f"{prefix}{name}.")


def _whole_numbers(config: Any, prefix: str = "") -> Iterator[tuple[str, int]]:
    """Yield the whole numbers of nested dataclasses under their dotted names."""
    for field in fields(config):
        value, name = getattr(config, field.name), prefix + field.name
        if is_dataclass(value):
            yield from _whole_numbers(value, f"{name}.")
        elif isinstance(value, int) and not isinstance(value, bool):
            yield name, value


def _plain(value: Any) -> Any:
    """Return what YAML has words for."""
    if isinstance(value, dict):
        return {name: _plain(content) for name, content in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(content) for content in value]
    return str(value) if isinstance(value, Path) else value
