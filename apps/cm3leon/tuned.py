"""What a tuned run can be asked for: its tasks, and the streams of guidance that it has learnt."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from cm3_decoding import SamplingConfig
from cm3_texttok import Task
from cm3_train.artifact import write_json
from cm3leon.drawing.sampling import check_used
from cm3leon.instructions.features import NAMES
from cm3leon.instructions.sets import said_task, task_of
from cm3leon.recipe_file import read_tuning
from cm3leon.stages import read_object
from cm3leon.tuning_recipe import TuningRecipe

ANSWERED = {"ask": ("vqa2", "okvqa", "vizwiz"), "long": ("image_paragraph", "localized_narratives")}
"""Tasks that answer a command; the first that the run was tuned on does."""
TASKS_FILE = "tasks.json"
"""In the decoder's folder of a tuned run."""


@dataclass(frozen=True, kw_only=True)
class Tuned:
    """What a tuning has taught."""

    folder: Path
    tasks: Mapping[str, Task]
    recipe: TuningRecipe
    with_documents: frozenset[str] = frozenset()
    """Tasks whose records were shown behind retrieved documents."""

    def task(self, name: str) -> Task:
        """Return a task.

        Raises:
            ValueError: The run was not tuned on it.
        """
        if name not in self.tasks:
            raise ValueError(
                f"{self.folder}: wanted a run that was tuned on {name}, got one of "
                f"{', '.join(self.tasks)}"
            )
        return self.tasks[name]

    def answering(self, command: str) -> Task:
        """Return the task that answers a command of `ANSWERED`; errors as of `task`."""
        names = ANSWERED[command]
        return self.task(next((name for name in names if name in self.tasks), names[0]))

    def documents_before(self, task: Task, asked: int | None) -> int | None:
        """Return how many documents to retrieve for a task, as asked or as it was shown."""
        return 0 if asked is None and task.name not in self.with_documents else asked

    def sampling(self, task: str, changes: Mapping[str, Any]) -> SamplingConfig:
        """Return how to draw what a task asks for.

        Args:
            task: Its name.
            changes: Fields that differ from the run's own; None values are skipped.

        Raises:
            ValueError: A value is out of range or changes nothing, or the run has not learnt a
                stream of guidance.
        """
        given = {name: value for name, value in changes.items() if value is not None}
        sampling = replace(self.recipe.guidance.sampling(task), **given)
        check_used([sampling], given.keys() - {"sampler"})
        self.recipe.check_streams(sampling)
        return sampling

    @property
    def features(self) -> list[str]:
        """Names of the features along which it draws."""
        return [name for name in NAMES if name in self.tasks]

    @property
    def grid(self) -> int:
        """What the places of boxes are multiples of."""
        return 1 if self.recipe.sets else self.recipe.embedded.grid


def write_tasks(folder: Path, tasks: Iterable[Task], with_documents: Iterable[str]) -> None:
    """Note the tasks of a tuning in the decoder's folder, and which were shown with documents."""
    said = {"tasks": [said_task(task) for task in tasks], "documents": [*with_documents]}
    write_json(folder / TASKS_FILE, said)


def open_tuned(folder: Path) -> Tuned:
    """Open what a run was tuned on.

    Raises:
        ValueError: It is a run, but no tuned one.
    """
    path = folder / "decoder" / TASKS_FILE
    if not path.is_file():
        raise ValueError(f"{folder}: wanted a run that apps/sft.py has tuned, got an untuned one")
    said = read_object(path, "tasks", "documents")
    tasks = [task_of(one, path) for one in said["tasks"]]
    return Tuned(
        folder=folder,
        tasks={task.name: task for task in tasks},
        recipe=read_tuning(folder),
        with_documents=frozenset(said["documents"]),
    )
