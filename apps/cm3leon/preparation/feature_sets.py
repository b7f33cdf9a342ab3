"""Captioned pictures to a set of instructions for each of several features, one after another.

Each set is a preparation of its own, in a folder named after the feature: it reads and encodes the
pictures again, and is kept, gone on with or made anew whatever becomes of the others.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from cm3_retrieval.picture_file import shown
from cm3leon.instructions.example import Example
from cm3leon.instructions.features import features
from cm3leon.instructions.readers.forms import open_reader
from cm3leon.preparation.job import FeaturePreparation
from cm3leon.preparation.task_driver import prepare_task
from cm3leon.recipe import Recipe


def prepare_features(
    recipe: Recipe, options: FeaturePreparation, say: Callable[[str], None] = print
) -> dict[str, dict[str, Any]]:
    """Make the sets, or go on with them; gives their reports by feature.

    A feature whose weights are missing or damaged is left out, and said.

    Args:
        recipe: As of `prepare_task`.
        options: The features, their weights, the files, and the rest.
        say: Takes one line for the user.

    Raises:
        ValueError: None can be made, or the pictures bring features of their own, which cannot be
            those of several sets; the rest as of `prepare_task`.
    """
    check_own_features(options)
    opened, left_out = features(options.features, options.feature_weights)
    for name, reason in left_out.items():
        say(f"{name}: left out: {reason}")
    if not opened:
        raise ValueError(
            f"--features: wanted at least one that can be made, got {', '.join(left_out)}"
        )
    reports = {}
    for name in opened:
        say(f"{name}: to {options.folder / name}")
        reports[name] = prepare_task(recipe, options.alone(name), say)
    return reports


def check_own_features(options: FeaturePreparation) -> None:
    """Refuse pictures that bring their features along; errors as of `prepare_features`."""
    task = options.alone(options.features[0]).task
    found = open_reader(task, options.source, options.images).read()
    first = next((one for one in found if isinstance(one, Example)), None)
    if first is not None and "feature" in first.pictures:
        raise ValueError(
            f"{shown(options.source)}: wanted pictures whose features are computed, got "
            "feature_file_name; make a set of it with --task"
        )
