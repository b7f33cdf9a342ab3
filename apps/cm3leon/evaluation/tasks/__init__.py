"""Tasks of `apps/evaluate.py`: what a model is asked for, and how its outputs are scored."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import jsonargparse

from cm3leon.evaluation.tasks.interface import EvaluationTask
from cm3leon.named_parts import callable_of

KINDS = {
    "drawing": "cm3leon.evaluation.tasks.drawing.Drawing",
    "reconstruction": "cm3leon.evaluation.tasks.reconstruction.Reconstruction",
    "perplexity": "cm3leon.evaluation.tasks.perplexity.Perplexity",
    "captions": "cm3leon.evaluation.tasks.captions.Captions",
    "questions": "cm3leon.evaluation.tasks.answers.Questions",
    "choices": "cm3leon.evaluation.tasks.answers.Choices",
    "edits": "cm3leon.evaluation.tasks.edits.Edits",
    "boxes": "cm3leon.evaluation.tasks.boxes.Boxes",
}
"""The classes of the tasks that are here."""


def task_of(name: str, settings: Mapping[str, Any]) -> EvaluationTask:
    """Make a task of its settings in a recipe.

    Raises:
        ValueError: There is no such kind, or it has no such setting or value.
    """
    if not re.fullmatch(r"\w[\w.-]*", name):  # it names a folder, too
        raise ValueError(f"tasks: wanted names of letters, digits, . _ and -, got {name!r}")
    given = dict(settings)
    kind = given.pop("kind", name)
    if not isinstance(kind, str) or (kind not in KINDS and "." not in kind):
        raise ValueError(f"tasks.{name}: wanted a kind of {', '.join(KINDS)}, got {kind!r}")
    role = f"tasks.{name}"
    made = callable_of({"class_path": KINDS.get(kind, kind)}, role)
    parser = jsonargparse.ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(made, nested_key=None)  # pyright: ignore[reportArgumentType]
    try:
        values = parser.instantiate(parser.parse_object(given)).as_dict()
        task = made(**values)
    except (jsonargparse.ArgumentError, TypeError, ValueError) as error:
        raise ValueError(f"{role}: {error}") from None
    if getattr(task, "number", 1) < 1:
        raise ValueError(f"{role}: number: wanted at least 1, got {task.number}")
    return task
